//! The configuration of connections.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{dial::Dialer, errors::ErrorText, health::Status};

/// What all connections of a store have in common, whatever the server.
pub(super) struct LinkConfig {
    /// Where the supervisor runs, whoever happens to need the link first.
    pub(super) runtime: Handle,
    pub(super) dialer: Dialer,
    /// A key to read before a connection is used.
    pub(super) probe: String,
    /// How long writes may wait for replicas, if they do: then every server is asked who it is.
    pub(super) confirm: Option<Duration>,
    pub(super) connect_timeout: Duration,
    /// How old a connection to an address may become that may lead to another server.
    pub(super) max_connection_age: Duration,
    /// Whether a server has refused to note the name of this library.
    pub(super) is_nameless: AtomicBool,
    pub(super) deadline: Duration,
    pub(super) errors: ErrorText,
    pub(super) status: Arc<Status>,
}

#[cfg(test)]
impl LinkConfig {
    /// One in which every duration is a second, for the runtime of the test.
    pub(super) fn for_test() -> Arc<Self> {
        use super::{RedisTopology, dial::Credentials};

        let second = Duration::from_secs(1);
        Arc::new(Self {
            runtime: Handle::current(),
            dialer: Dialer::new(Credentials::default(), 0, second),
            probe: String::from("probe"),
            confirm: None,
            connect_timeout: second,
            deadline: second,
            max_connection_age: second,
            is_nameless: false.into(),
            errors: ErrorText::new([]),
            status: Arc::new(Status::new(RedisTopology::Standalone)),
        })
    }
}
