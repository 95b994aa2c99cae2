use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::Mutex;

use crate::store::redis::{
    conn::{Connect, health::RedisPrimary, link::Link, link_config::LinkConfig},
    ops::{confirm::Confirmer, lookup::Lookups},
    source::Source,
    wire::address::Address,
};

/// The connections to one server: a fixed one, or the current master.
pub(crate) struct Node {
    /// The link for operations on the path of a request.
    pub(crate) lookups: Arc<Lookups>,
    lists: OnceLock<Link>,
    confirmer: OnceLock<Confirmer>,
    source: Source,
    config: Arc<LinkConfig>,
    /// Held while one of the links connects, so that they connect one at a time.
    dialing: Arc<Mutex<()>>,
}

/// The class of an operation, which determines its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Operations on the path of a request.
    Requests,
    /// Operations that may take long. They have their own connection, so that they do not delay checks.
    Lists,
}

impl Node {
    /// Starts to connect.
    pub(crate) fn start(config: Arc<LinkConfig>, source: Source) -> Self {
        let dialing = Arc::default();
        let near = config.near.clone();
        let requests = Link::start(&config, source.clone(), &dialing, Duration::ZERO, near);
        let node = Self {
            lookups: Arc::new(Lookups::new(requests)),
            lists: OnceLock::new(),
            confirmer: OnceLock::new(),
            source,
            config,
            dialing,
        };
        if node.config.confirm.is_some() {
            // Connects now, because the deadline of the first logout leaves no time for that.
            node.confirmer();
        }
        node
    }

    /// The link for operations on the path of a request.
    pub(crate) fn requests(&self) -> &Link {
        &self.lookups.link
    }

    /// The link of this lane, which starts to connect at the first call.
    pub(crate) fn lane(&self, lane: Lane) -> &Link {
        match lane {
            Lane::Requests => self.requests(),
            Lane::Lists => {
                let start = || {
                    let source = self.source.clone();
                    Link::start(&self.config, source, &self.dialing, Duration::ZERO, None)
                };
                self.lists.get_or_init(start)
            }
        }
    }

    /// Confirms the writes of all connections. It has its own connection, because `WAIT` blocks it.
    pub(crate) fn confirmer(&self) -> &Confirmer {
        let start = || Confirmer::start(&self.config, self.source.clone(), &self.dialing);
        self.confirmer.get_or_init(start)
    }

    /// The current address of the server, if it is known.
    pub(crate) fn address(&self) -> Option<Address> {
        self.source.address()
    }

    /// The state of the connection for requests; `None` as long as the address of the server is unknown.
    pub(crate) fn health(&self) -> Option<RedisPrimary> {
        let live = self.requests().in_use();
        let address = match &live {
            Some(live) => live.connected.address.clone(),
            None => self.source.address()?,
        };
        Some(RedisPrimary {
            address: address.to_string(),
            connected_at: live.as_ref().map(|live| live.since),
            role_watched: live.is_some_and(|live| live.connected.role_watched),
        })
    }
}
