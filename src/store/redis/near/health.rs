/// The state of the near-cache of a [`RedisStore`](crate::RedisStore); of
/// [`RedisHealth::near_cache`](crate::RedisHealth::near_cache).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearCacheHealth {
    /// About how many bytes the cache takes.
    pub bytes: usize,
    /// How many checks the cache has answered since the store was made.
    pub hits: u64,
    /// How many it has not, so that they asked the server.
    pub misses: u64,
    /// How many changes of users the server has announced, or this store has made. A change of this store counts twice,
    /// because the server announces it as well.
    pub invalidations: u64,
    /// How often the lease of a connection was lost, so that checks asked the server until there was another one: the
    /// connection was lost or replaced, the server announced nothing any more, or it did not answer in time. Often
    /// means that the network or the servers are slow for this `max_staleness`.
    pub lease_losses: u64,
}
