use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::dial::Address;
use crate::Error;

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
    pub(super) topology: RedisTopology,
    pub(super) primaries: Vec<RedisPrimary>,
    pub(super) reconnects: u64,
    pub(super) last_error: Option<(SystemTime, Error)>,
}

/// A server that takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPrimary {
    pub(super) address: String,
    pub(super) connected: bool,
}

impl RedisHealth {
    /// Whether there is a connection over which the next operation would be sent; with a cluster, to at least one
    /// of its primaries.
    pub fn is_connected(&self) -> bool {
        self.primaries.iter().any(|primary| primary.connected)
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

    /// How often a connection was replaced, since the store was made.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// What went wrong last, and when: a connection was lost or could not be made, or an operation found the server unfit
    /// or got no answer in time. It stays when all is well again. There are no secrets in it.
    pub fn last_error(&self) -> Option<(SystemTime, &Error)> {
        self.last_error.as_ref().map(|(at, error)| (*at, error))
    }
}

impl RedisPrimary {
    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether there is a connection to it.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn new(address: &Address, connected: bool) -> Self {
        Self {
            address: address.to_string(),
            connected,
        }
    }
}

/// What is counted and remembered for [`RedisHealth`].
pub(super) struct Status {
    pub(super) topology: RedisTopology,
    reconnects: AtomicU64,
    last_error: Mutex<Option<(SystemTime, Error)>>,
}

impl Status {
    pub(super) fn new(topology: RedisTopology) -> Self {
        Self {
            topology,
            reconnects: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    pub(super) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers what went wrong.
    pub(super) fn note(&self, error: &Error) {
        *self.last_error() = Some((SystemTime::now(), error.clone()));
    }

    pub(super) fn report(&self, primaries: Vec<RedisPrimary>) -> RedisHealth {
        RedisHealth {
            topology: self.topology,
            primaries,
            reconnects: self.reconnects.load(Ordering::Relaxed),
            last_error: self.last_error().clone(),
        }
    }

    fn last_error(&self) -> MutexGuard<'_, Option<(SystemTime, Error)>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
