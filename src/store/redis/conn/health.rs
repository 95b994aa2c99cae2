use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crate::{Error, store::redis::near::NearCacheHealth};

/// How the servers of a [`RedisStore`](crate::RedisStore) are organized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedisTopology {
    /// One server.
    Standalone,
    /// A master and its replicas, supervised by sentinels.
    Sentinel,
    /// Redis Cluster.
    Cluster,
}

/// The state of a [`RedisStore`](crate::RedisStore), at the moment when it was asked for; of
/// [`RedisStore::health`](crate::RedisStore::health).
#[derive(Clone, Debug)]
pub struct RedisHealth {
    pub(crate) topology: RedisTopology,
    pub(crate) primaries: Vec<RedisPrimary>,
    pub(crate) reconnects: u64,
    pub(crate) refused_checks: u64,
    pub(crate) last_error: Option<(SystemTime, Error)>,
    pub(crate) near_cache: Option<NearCacheHealth>,
}

/// A server that takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPrimary {
    pub(crate) address: String,
    pub(crate) connected_at: Option<SystemTime>,
    pub(crate) role_watched: bool,
}

impl RedisHealth {
    /// Whether there is a connection over which the next operation would be sent; with a cluster, to at least one
    /// of its primaries.
    pub fn is_connected(&self) -> bool {
        self.primaries.iter().any(RedisPrimary::is_connected)
    }

    /// How the servers are organized.
    pub fn topology(&self) -> RedisTopology {
        self.topology
    }

    /// The server, the master that the sentinels name, or all primaries of the cluster; empty as long as neither
    /// a sentinel nor a node of the cluster has named any.
    pub fn primaries(&self) -> &[RedisPrimary] {
        &self.primaries
    }

    /// How often a connection was replaced because it was lost, or its server was unfit or did not answer, since the
    /// store was made. Connections that only reached [their greatest age](crate::RedisStoreBuilder::max_connection_age)
    /// do not count.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// How many checks were refused because a server was [overloaded](crate::RedisStoreBuilder::load_shedding), since the
    /// store was made.
    pub fn refused_checks(&self) -> u64 {
        self.refused_checks
    }

    /// What went wrong last, and when: a connection was lost or could not be made, or an operation found the server
    /// unfit or got no answer in time. It stays when all is well again. There are no secrets in it.
    pub fn last_error(&self) -> Option<(SystemTime, &Error)> {
        self.last_error.as_ref().map(|(at, error)| (*at, error))
    }

    /// The state of the [near-cache](crate::RedisStoreBuilder::near_cache), if there is one.
    pub fn near_cache(&self) -> Option<&NearCacheHealth> {
        self.near_cache.as_ref()
    }
}

impl RedisPrimary {
    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether there is a connection to it.
    pub fn is_connected(&self) -> bool {
        self.connected_at.is_some()
    }

    /// When the connection in use was made, by the clock of this machine: the server is the one that the address led to
    /// at that time. `None` without a connection.
    pub fn connected_at(&self) -> Option<SystemTime> {
        self.connected_at
    }

    /// Whether the store notices when the server is demoted in place, because the server tells its role (in the reply
    /// to [`HELLO`](https://redis.io/docs/latest/commands/hello/)). Some proxies do not pass it on. Of a primary of a
    /// cluster it is `false`: the cluster tells who the primaries are.
    pub fn is_role_watched(&self) -> bool {
        self.role_watched
    }
}

/// What is counted and remembered for [`RedisHealth`].
pub(crate) struct Status {
    pub(crate) topology: RedisTopology,
    reconnects: AtomicU64,
    refused_checks: AtomicU64,
    last_error: Mutex<Option<(SystemTime, Error)>>,
}

impl Status {
    pub(crate) fn new(topology: RedisTopology) -> Self {
        Self {
            topology,
            reconnects: AtomicU64::new(0),
            refused_checks: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused_checks.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers what went wrong.
    pub(crate) fn note(&self, error: &Error) {
        *self.last_error() = Some((SystemTime::now(), error.clone()));
    }

    pub(crate) fn report(
        &self,
        primaries: Vec<RedisPrimary>,
        near_cache: Option<NearCacheHealth>,
    ) -> RedisHealth {
        RedisHealth {
            topology: self.topology,
            primaries,
            reconnects: self.reconnects.load(Ordering::Relaxed),
            refused_checks: self.refused_checks.load(Ordering::Relaxed),
            last_error: self.last_error().clone(),
            near_cache,
        }
    }

    fn last_error(&self) -> MutexGuard<'_, Option<(SystemTime, Error)>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
