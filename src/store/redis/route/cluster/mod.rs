//! Redis Cluster: every slot has a primary, and every primary has its own supervised connection.
//!
//! A background task asks primaries for the slot map every two seconds. It asks one of them earlier, but only a few times
//! a second, when a node redirects, does not answer or is unreachable. Operations do not wait for a new map: they follow the
//! redirection, and later operations on the same slot go to the new node directly.
//!
//! The task asks over the connections in use. An old server behind a host name would therefore confirm its own role. So
//! connections to host names have a maximum age, and the connection to a node that reports `CLUSTERDOWN` is replaced.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout_at},
};

use self::{
    map::slot_of,
    refresh::{Nodes as _, keep_up_to_date},
    slots::SlotMap,
};
use super::node::Node;
use crate::{
    Error, ErrorKind,
    store::redis::{
        conn::{
            health::RedisPrimary,
            link::{Failure, runtime_is_gone},
            link_config::LinkConfig,
        },
        near::lease::Lease,
        source::Source,
        wire::address::Address,
    },
};

mod ask;
pub(crate) mod map;
mod operations;
mod partition;
mod ping;
mod redirect;
mod refresh;
#[cfg(test)]
mod scale;
mod scan;
mod slots;

/// The maximum number of keys to try in the search for keys in the slots of a node.
const MAX_TRIED_KEYS: u32 = 1000;
/// The number of such keys to find.
const MAX_KEYS: usize = 3;

const NO_SLOTS: &str = "no node of the cluster holds any slot";
const DISAGREEMENT: &str = "the nodes of the cluster do not agree on which of them holds a slot";

pub(crate) struct Cluster {
    shared: Arc<Shared>,
    refresher: AbortHandle,
}

struct Shared {
    config: Arc<LinkConfig>,
    /// The configured nodes.
    seeds: Vec<Address>,
    map: watch::Sender<MapState>,
    /// All nodes with a connection, and when an operation was last redirected to each.
    nodes: Mutex<HashMap<Address, (Arc<Node>, Instant)>>,
    /// Notified when the map may be outdated.
    outdated: Notify,
}

enum MapState {
    Asking,
    Known(Arc<SlotMap<Arc<Node>>>),
    /// No node has answered yet, and at least one attempt to ask has failed.
    Unknown(Error),
}

impl Cluster {
    /// Starts to connect.
    pub(crate) fn start(config: Arc<LinkConfig>, seeds: Vec<Address>) -> Self {
        let runtime = config.runtime.clone();
        let shared = Arc::new(Shared {
            config,
            seeds,
            map: watch::Sender::new(MapState::Asking),
            nodes: Mutex::default(),
            outdated: Notify::new(),
        });
        let refresher = runtime.spawn(keep_up_to_date(Arc::clone(&shared)));
        Self {
            shared,
            refresher: refresher.abort_handle(),
        }
    }

    /// Waits until the connection to one of the primaries is usable. Fails if none is.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        let map = self.map().await?;
        let mut attempts = JoinSet::new();
        for (_, node) in map.primaries() {
            let node = Arc::clone(node);
            attempts.spawn(async move { node.requests().ready().await });
        }
        let mut outcome = Err(unavailable(NO_SLOTS));
        while let Some(attempt) = attempts.join_next().await {
            outcome = attempt.unwrap_or_else(|_| Err(runtime_is_gone()));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The node that answered from this address.
    pub(crate) fn node_at(&self, address: &Address) -> Arc<Node> {
        self.shared.node_at(address.clone())
    }

    /// Returns keys that begin with `prefix`, in slots that this node holds according to the current map.
    pub(crate) fn keys_at(&self, address: &Address, prefix: &str) -> impl Iterator<Item = String> {
        let map = self.shared.known();
        let keys = (0..MAX_TRIED_KEYS).map(move |number| format!("{prefix}:{{{number}}}"));
        let is_here = move |key: &String| {
            let map = map.as_ref();
            let primary = map.and_then(|map| map.primary(slot_of(key)));
            primary.is_some_and(|(primary, _)| primary == address)
        };
        keys.filter(is_here).take(MAX_KEYS)
    }

    /// Whether this lease is that of the connection to the primary of a slot, according to the current map.
    pub(crate) fn is_current(&self, lease: &Arc<Lease>, slot: u16) -> bool {
        match &*self.shared.map.borrow() {
            MapState::Known(map) => {
                let primary = map.primary(slot);
                primary.is_some_and(|(_, node)| node.requests().is_lease(lease))
            }
            MapState::Asking | MapState::Unknown(_) => false,
        }
    }

    pub(crate) fn health(&self) -> Vec<RedisPrimary> {
        match &*self.shared.map.borrow() {
            MapState::Known(map) => {
                let primaries = map.primaries();
                primaries.filter_map(|(_, node)| node.health()).collect()
            }
            MapState::Asking | MapState::Unknown(_) => Vec::new(),
        }
    }

    /// Returns the slot map. Waits for the first one.
    async fn map(&self) -> Result<Arc<SlotMap<Arc<Node>>>, Error> {
        if let MapState::Known(map) = &*self.shared.map.borrow() {
            return Ok(Arc::clone(map));
        }
        let mut map = self.shared.map.subscribe();
        let known = map.wait_for(|map| !matches!(map, MapState::Asking)).await;
        match known.as_deref() {
            Ok(MapState::Known(map)) => Ok(Arc::clone(map)),
            Ok(MapState::Unknown(error)) => Err(error.clone()),
            Ok(MapState::Asking) | Err(_) => Err(runtime_is_gone()),
        }
    }

    /// The map, as soon as there is one, within the deadline of an operation.
    async fn map_by(&self, deadline: Instant) -> Result<Arc<SlotMap<Arc<Node>>>, Failure> {
        match timeout_at(deadline, self.map()).await {
            Ok(map) => map.map_err(Failure::Down),
            Err(_) => Err(Failure::Deadline),
        }
    }

    /// The node that holds this key according to the current map.
    async fn find(&self, key: &str, deadline: Instant) -> Result<Arc<Node>, Failure> {
        let map = self.map_by(deadline).await?;
        let slot = slot_of(key);
        let Some((_, node)) = map.primary(slot) else {
            self.shared.outdated.notify_one();
            let message = format!("no node of the cluster holds slot {slot}");
            return Err(Failure::Down(unavailable(message)));
        };
        Ok(Arc::clone(node))
    }
}

impl Shared {
    /// The node at this address. Starts to connect to it if it is new.
    fn node_at(&self, address: Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let (node, used) = self.node(&mut nodes, address);
        *used = Instant::now();
        Arc::clone(node)
    }

    /// Records the new primary of the slot of `key`, so that later operations do not go to its old primary first. The
    /// next map replaces this record.
    fn note_move(&self, key: &str, to: &Address, node: &Arc<Node>) {
        let slot = slot_of(key);
        self.map.send_if_modified(|state| {
            let MapState::Known(map) = state else {
                return false;
            };
            let news = map.primary(slot).is_none_or(|(primary, _)| primary != to);
            if news {
                *map = Arc::new(map.with_moved(slot, to, node));
            }
            news
        });
    }

    fn node<'a>(
        &self,
        nodes: &'a mut HashMap<Address, (Arc<Node>, Instant)>,
        address: Address,
    ) -> &'a mut (Arc<Node>, Instant) {
        nodes.entry(address).or_insert_with_key(|address| {
            let source = Source::Fixed(address.clone());
            let node = Node::start(Arc::clone(&self.config), source);
            (Arc::new(node), Instant::now())
        })
    }
}

fn unavailable(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}
