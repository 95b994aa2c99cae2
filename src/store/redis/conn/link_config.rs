//! The configuration of connections.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::runtime::Handle;

use super::health::Status;
use crate::store::redis::{
    near::Near,
    wire::{dial::Dialer, errors::ErrorText},
};

/// The configuration that all connections of a store share.
pub(crate) struct LinkConfig {
    /// The runtime of the supervisors, whichever task needs a link first.
    pub(crate) runtime: Handle,
    pub(crate) dialer: Dialer,
    /// A key to read before a connection is used.
    pub(crate) probe: String,
    /// How long writes may wait for replicas, if they do: then every server is asked who it is.
    pub(crate) confirm: Option<Duration>,
    pub(crate) connect_timeout: Duration,
    /// How old a connection to an address may become that may lead to another server.
    pub(crate) max_connection_age: Duration,
    /// Whether a server has refused to note the name of this library.
    pub(crate) is_nameless: AtomicBool,
    pub(crate) deadline: Duration,
    /// Whether checks are refused when the server is overloaded.
    pub(crate) sheds_load: bool,
    /// What lookups fill, if there is a near-cache.
    pub(crate) near: Option<Arc<Near>>,
    pub(crate) errors: ErrorText,
    pub(crate) status: Arc<Status>,
}

#[cfg(test)]
impl LinkConfig {
    /// One in which every duration is a second, for the runtime of the test.
    pub(crate) fn for_test() -> Arc<Self> {
        use super::health::RedisTopology;
        use crate::store::redis::wire::{
            login::{Credentials, Login},
            resolve::Resolver,
        };

        let second = Duration::from_secs(1);
        Arc::new(Self {
            runtime: Handle::current(),
            dialer: Dialer {
                resolver: Resolver::system(),
                login: Login::With(Credentials::default()),
                errors: ErrorText::default(),
                db: 0,
                tls: None,
                connect_timeout: second,
                expands_seeds: false,
            },
            probe: String::from("probe"),
            confirm: None,
            connect_timeout: second,
            deadline: second,
            sheds_load: true,
            max_connection_age: second,
            is_nameless: false.into(),
            near: None,
            errors: ErrorText::default(),
            status: Arc::new(Status::new(RedisTopology::Standalone)),
        })
    }
}
