//! When the map of slots is asked for, and whom.

use std::{mem, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    map::{Claim, Range, resolve},
    slots::SlotMap,
};
use crate::{Error, jitter, store::redis::wire::address::Address};

/// The interval between two polls.
pub(super) const POLL: Duration = Duration::from_secs(2);
/// The minimum time between two refreshes, however many operations fail, unless a poll is due. It doubles with each
/// refresh that brings no news until it reaches a maximum, and up to as much is added at random, so that processes that
/// observe the same fault do not refresh in step.
const PAUSE: Duration = Duration::from_millis(250);
pub(super) const MAX_PAUSE: Duration = Duration::from_millis(600);
/// The maximum number of nodes that are asked at a time.
pub(super) const MAX_ASKED: usize = 5;

/// The claims of one node.
pub(super) type Said = (Address, Vec<Claim>);

/// The nodes of a cluster, and what is known about their slots.
pub(super) trait Nodes: Send + Sync + 'static {
    /// A connection to a primary.
    type Node: Clone + Send;

    /// The current map, if there is one.
    fn known(&self) -> Option<Arc<SlotMap<Self::Node>>>;

    /// Asks a node over its connection; `None` if it does not answer in time.
    fn ask(self: Arc<Self>, node: Self::Node) -> impl Future<Output = Option<Said>> + Send;

    /// Asks the configured nodes over new connections.
    fn ask_seeds(self: &Arc<Self>) -> impl Future<Output = Result<Vec<Said>, Error>> + Send;

    /// Replaces the map.
    fn adopt(&self, ranges: &[Range]);

    /// Notes that no node could be asked.
    fn failed(&self, error: Error);

    /// Waits until the map may be outdated.
    fn outdated(&self) -> impl Future<Output = ()> + Send;
}

/// Keeps the map up to date.
pub(super) async fn keep_up_to_date(nodes: Arc<impl Nodes>) {
    let (mut pause, mut poll) = (PAUSE, Instant::now());
    // Processes that start together do not poll in step, and not the same nodes.
    let (mut interval, mut from) = (jitter::up_to(POLL), jitter::number());
    loop {
        let begun = Instant::now();
        let is_poll = begun >= poll;
        if is_poll {
            poll = begun + mem::replace(&mut interval, POLL);
        }
        from = from.wrapping_add(MAX_ASKED);
        // However often it is asked for in between, a poll is in time.
        let next = poll.min(begun + pause + jitter::up_to(pause));
        let has_news = refresh(&nodes, from, is_poll).await;
        let is_asked_for = tokio::select! {
            () = nodes.outdated() => true,
            () = sleep_until(poll) => false,
        };
        pause = match is_asked_for && !has_news {
            true => MAX_PAUSE.min(pause * 2),
            false => PAUSE,
        };
        sleep_until(next).await;
    }
}

/// Asks for the map, and returns whether it has changed. A poll asks several nodes, because one may not know of a
/// failover yet. In between, the map is asked for because an operation has failed, maybe those of many processes at the
/// same time: then one node is asked, and others only if it does not answer or knows another map.
async fn refresh(nodes: &Arc<impl Nodes>, from: usize, is_poll: bool) -> bool {
    let known = nodes.known();
    let mut said = Vec::new();
    if let Some(map) = &known {
        if !is_poll {
            let one = ask_primaries(nodes, map, jitter::number(), 1).await;
            if !one.is_empty() && resolve(&one) == map.ranges() {
                return false;
            }
            said = one;
        }
        let others = ask_primaries(nodes, map, from, MAX_ASKED).await;
        match others.is_empty() {
            true => said.clear(),
            // The one may be the only one that knows of a failover.
            false => said.extend(others),
        }
    }
    if said.is_empty() {
        match nodes.ask_seeds().await {
            Ok(seeds) => said = seeds,
            Err(error) => {
                nodes.failed(error);
                return false;
            }
        }
    }
    let ranges = resolve(&said);
    let has_news = known.is_none_or(|map| map.ranges() != ranges);
    nodes.adopt(&ranges);
    has_news
}

/// Asks this number of primaries, from one of them on. Returns nothing if fewer than half of them answer, because these
/// may be the ones that are cut off from the cluster.
async fn ask_primaries<N: Nodes>(
    nodes: &Arc<N>,
    map: &SlotMap<N::Node>,
    from: usize,
    number: usize,
) -> Vec<Said> {
    let primaries: Vec<N::Node> = map.primaries().map(|(_, node)| node.clone()).collect();
    let asked = primaries.len().min(number);
    let from = from % primaries.len().max(1);
    let mut tasks = JoinSet::new();
    for node in primaries.into_iter().cycle().skip(from).take(asked) {
        tasks.spawn(Arc::clone(nodes).ask(node));
    }
    let said: Vec<Said> = tasks.join_all().await.into_iter().flatten().collect();
    if said.len() * 2 < asked {
        Vec::new()
    } else {
        said
    }
}
