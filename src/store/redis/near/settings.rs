use std::time::Duration;

use crate::{Error, store::config::config_error};

const MIN_BYTES: usize = 64 * 1024;
const MIN_STALENESS: Duration = Duration::from_millis(50);
const MAX_STALENESS: Duration = Duration::from_secs(10);

/// The settings of the near-cache of a [`RedisStore`](crate::RedisStore), for
/// [`RedisStoreBuilder::near_cache`](crate::RedisStoreBuilder::near_cache).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearCache {
    pub(crate) max_bytes: usize,
    pub(crate) max_staleness: Duration,
    pub(crate) is_per_key: bool,
}

impl NearCache {
    /// A near-cache of 64 MiB that adds at most 300 ms, with changes of all users announced by broadcast.
    pub fn new() -> Self {
        Self {
            max_bytes: 64 * 1024 * 1024,
            max_staleness: Duration::from_millis(300),
            is_per_key: false,
        }
    }

    /// The maximum size, in bytes: about what the entries take, with all that belongs to them. At least 64 KiB.
    ///
    /// An entry is a session with the cached value of its user, and takes about 500 bytes besides its metadata and that
    /// value. When the cache is full, entries that have not been used lately make room. One that would take more than
    /// an eighth of a MiB, or of the cache if that is smaller, is not kept.
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// The longest time that the near-cache adds to what a check without it would see; 50 ms to 10 s.
    ///
    /// The store asks each server three times as often whether it still announces changes. A smaller value makes the
    /// cache useless where replies of the server take that long.
    pub fn max_staleness(mut self, max_staleness: Duration) -> Self {
        self.max_staleness = max_staleness;
        self
    }

    /// Lets the server remember which keys this store has read, and announce changes of those only. By default, it
    /// announces all changes of sessions and cached users to all stores with a near-cache.
    ///
    /// Broadcast takes no memory at the server, and every write costs it one message to every process. Announcements
    /// per key take some memory for each key and process
    /// ([`tracking-table-max-keys`](https://redis.io/docs/latest/develop/reference/client-side-caching/)) and some time
    /// for each read, and suit large fleets in which each process serves few of the users.
    pub fn per_key(mut self) -> Self {
        self.is_per_key = true;
        self
    }

    /// Checks the settings.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.max_bytes < MIN_BYTES {
            return Err(config_error(format!(
                "max_bytes of the near-cache is {}; the smallest is {MIN_BYTES}",
                self.max_bytes
            )));
        }
        if !(MIN_STALENESS..=MAX_STALENESS).contains(&self.max_staleness) {
            return Err(config_error(format!(
                "max_staleness of the near-cache is {:?}; it can be {MIN_STALENESS:?} to {MAX_STALENESS:?}",
                self.max_staleness
            )));
        }
        Ok(())
    }
}

impl Default for NearCache {
    fn default() -> Self {
        Self::new()
    }
}
