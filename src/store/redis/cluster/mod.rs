//! Redis Cluster: every slot has a primary, and every primary a supervised connection of its own.
//!
//! The primaries are asked for the map of the slots every two seconds, and at once when one of them points
//! elsewhere, does not answer or cannot be reached. Operations do not wait for that: where a node says that a
//! slot is elsewhere they go there.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{Pipeline, Value};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout_at},
};

use self::{
    map::{Range, slot_of},
    redirect::{Redirect, is_unfit},
    refresh::Refresher,
};
use super::{
    dial::Address,
    errors::server_code,
    health::RedisPrimary,
    link::{Answer, Failure, LinkConfig, OnDrop, runtime_is_gone},
    lookup::{Found, Sought},
    node::{Lane, Node},
    topology::Source,
};
use crate::{Error, ErrorKind};

mod map;
mod redirect;
mod refresh;

/// After so many redirections nodes seem to disagree, as they do for a moment when a slot has moved.
const HASTY_REDIRECTIONS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(20);
/// How many keys are looked at to find one in a slot that a node holds, and how many are wanted.
const MAX_TRIED_KEYS: u32 = 1000;
const MAX_KEYS: usize = 3;
/// A node that holds no slot is forgotten when no operation was sent there for this long.
const KEEP_UNUSED: Duration = Duration::from_secs(60);

pub(super) struct Cluster {
    shared: Arc<Shared>,
    refresher: AbortHandle,
}

struct Shared {
    config: Arc<LinkConfig>,
    map: watch::Sender<MapState>,
    /// All that are connected to, and when each was last redirected to.
    nodes: Mutex<HashMap<Address, (Arc<Node>, Instant)>>,
    /// Something says that the map is outdated.
    outdated: Notify,
}

enum MapState {
    Asking,
    Known(Arc<SlotMap>),
    /// No node could be asked, ever.
    Unknown(Error),
}

/// Which node holds which slot.
struct SlotMap {
    ranges: Vec<(Range, Arc<Node>)>,
}

impl Cluster {
    /// Starts to connect.
    pub(super) fn start(config: Arc<LinkConfig>, seeds: Vec<Address>) -> Self {
        let runtime = config.runtime.clone();
        let shared = Arc::new(Shared {
            config,
            map: watch::Sender::new(MapState::Asking),
            nodes: Mutex::default(),
            outdated: Notify::new(),
        });
        let refresher = Refresher {
            shared: Arc::clone(&shared),
            seeds,
        };
        Self {
            shared,
            refresher: runtime.spawn(refresher.run()).abort_handle(),
        }
    }

    /// Waits until one of the primaries can be used, or none can.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        let map = self.map().await?;
        let mut outcome = Err(unavailable("no node of the cluster holds any slot"));
        for node in map.nodes() {
            outcome = node.requests.ready().await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Looks a session and its user up at the node that holds them.
    pub(super) async fn look_up(
        &self,
        deadline: Instant,
        sought: &Sought<'_>,
    ) -> Result<Found, Failure> {
        let node = self.find(sought.sessions, deadline).await?;
        match node.requests.look_up(deadline, sought).await {
            Ok(found) if !found.has_error() => Ok(found),
            Err(failure) => {
                self.shared.outdated.notify_one();
                Err(failure)
            }
            // Those that are to go elsewhere share no pipeline.
            Ok(_) => {
                let (key, commands) = (sought.sessions, &sought.commands());
                let answer = self.send(key, Lane::Requests, deadline, commands, OnDrop::Retry);
                Found::of(answer.await?)
            }
        }
    }

    /// Sends commands to the node that holds `key`, and those that it does not execute to where it says; all of
    /// them are about keys in the slot of `key`, or about none.
    pub(super) async fn send(
        &self,
        key: &str,
        lane: Lane,
        deadline: Instant,
        commands: &Pipeline,
        on_drop: OnDrop,
    ) -> Result<Answer, Failure> {
        let node = self.find(key, deadline).await?;
        let send = async |node: &Node| {
            let sent = node.lane(lane).send(deadline, commands, on_drop).await;
            if !sent
                .as_ref()
                .is_ok_and(|answer| !answer.values.iter().any(is_unfit))
            {
                self.shared.outdated.notify_one();
            }
            sent
        };
        let mut answer = send(&node).await?;
        for redirections in 1.. {
            let Some(redirect) = Redirect::of(&answer) else {
                return Ok(answer);
            };
            if redirections > HASTY_REDIRECTIONS {
                sleep_until(deadline.min(Instant::now() + PAUSE)).await;
            }
            if Instant::now() >= deadline {
                break;
            }
            match redirect {
                Redirect::Moved(address) => answer = send(&self.shared.node_at(address)).await?,
                Redirect::Ask(address) => {
                    let other = self.shared.node_at(address);
                    self.ask(&other, lane, deadline, commands, &mut answer, on_drop)
                        .await?;
                }
            }
        }
        let message = "the nodes of the cluster do not agree on which of them holds a slot";
        Err(Failure::Down(unavailable(message)))
    }

    /// While a slot is on the move each of its keys is here or there. Sends what is there to there, and puts the
    /// answers in place.
    async fn ask(
        &self,
        other: &Node,
        lane: Lane,
        deadline: Instant,
        commands: &Pipeline,
        answer: &mut Answer,
        on_drop: OnDrop,
    ) -> Result<(), Failure> {
        let mut asking = Pipeline::new();
        let mut places = Vec::new();
        for (place, command) in commands.cmd_iter().enumerate() {
            if matches!(&answer.values[place], Value::ServerError(error) if server_code(error) == "ASK")
            {
                asking.cmd("ASKING").add_command(command.clone());
                places.push(place);
            }
        }
        let there = other.lane(lane).send(deadline, &asking, on_drop).await?;
        for (place, value) in places
            .into_iter()
            .zip(there.values.into_iter().skip(1).step_by(2))
        {
            answer.values[place] = value;
        }
        answer.live = there.live;
        Ok(())
    }

    /// The node that answered from this address.
    pub(super) fn node_at(&self, address: &Address) -> Arc<Node> {
        self.shared.node_at(address.clone())
    }

    /// Keys in slots that this node holds, as far as is known: any, if only they begin with `prefix`.
    pub(super) fn keys_at(&self, address: &Address, prefix: &str) -> impl Iterator<Item = String> {
        let map = match &*self.shared.map.borrow() {
            MapState::Known(map) => Some(Arc::clone(map)),
            MapState::Asking | MapState::Unknown(_) => None,
        };
        let keys = (0..MAX_TRIED_KEYS).map(move |number| format!("{prefix}:{{{number}}}"));
        let is_here = move |key: &String| {
            let map = map.as_ref();
            map.is_some_and(|map| map.primary(slot_of(key)) == Some(address))
        };
        keys.filter(is_here).take(MAX_KEYS)
    }

    pub(super) fn health(&self) -> Vec<RedisPrimary> {
        match &*self.shared.map.borrow() {
            MapState::Known(map) => map.nodes().filter_map(|node| node.health()).collect(),
            MapState::Asking | MapState::Unknown(_) => Vec::new(),
        }
    }

    /// The map, as soon as there is one.
    async fn map(&self) -> Result<Arc<SlotMap>, Error> {
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

    /// The node that holds this key, as far as is known.
    async fn find(&self, key: &str, deadline: Instant) -> Result<Arc<Node>, Failure> {
        let map = match timeout_at(deadline, self.map()).await {
            Ok(Ok(map)) => map,
            Ok(Err(error)) => return Err(Failure::Down(error)),
            Err(_) => return Err(Failure::Deadline),
        };
        let slot = slot_of(key);
        map.holder(slot).cloned().ok_or_else(|| {
            self.shared.outdated.notify_one();
            let message = format!("no node of the cluster holds slot {slot}");
            Failure::Down(unavailable(message))
        })
    }
}

impl SlotMap {
    fn holder(&self, slot: u16) -> Option<&Arc<Node>> {
        self.find(slot).map(|(_, node)| node)
    }

    fn find(&self, slot: u16) -> Option<&(Range, Arc<Node>)> {
        let next = self.ranges.partition_point(|(range, _)| range.last < slot);
        let found = self.ranges.get(next)?;
        (found.0.first <= slot).then_some(found)
    }

    fn primary(&self, slot: u16) -> Option<&Address> {
        let (range, _) = self.find(slot)?;
        Some(&range.primary)
    }

    /// Each primary once.
    fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let mut nodes: Vec<_> = self.ranges.iter().map(|(_, node)| node).collect();
        nodes.sort_by_key(|node| Arc::as_ptr(node));
        nodes.dedup_by_key(|node| Arc::as_ptr(node));
        nodes.into_iter()
    }
}

impl Shared {
    /// The node at this address, which somebody pointed to.
    fn node_at(&self, address: Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let (node, used) = self.node(&mut nodes, address);
        *used = Instant::now();
        Arc::clone(node)
    }

    /// Puts a new map in place; connects to those in it that are new, and forgets those that nobody needs.
    fn adopt(&self, ranges: Vec<Range>) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let ranges: Vec<_> = ranges
            .into_iter()
            .map(|range| {
                let (node, _) = self.node(&mut nodes, range.primary.clone());
                let node = Arc::clone(node);
                (range, node)
            })
            .collect();
        let map = SlotMap { ranges };
        nodes.retain(|_, (node, used)| {
            used.elapsed() < KEEP_UNUSED || map.nodes().any(|held| Arc::ptr_eq(held, node))
        });
        drop(nodes);
        self.map.send_replace(MapState::Known(Arc::new(map)));
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
