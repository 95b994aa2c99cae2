//! Asks the nodes of a cluster which slots are where.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use redis::{Pipeline, RedisError, Value};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    MapState, Shared,
    map::{Range, claims},
    refresh::{Nodes, Said},
    slots::SlotMap,
};
use crate::{
    Error, ErrorKind,
    store::redis::{
        conn::link::OnDrop,
        route::node::Node,
        wire::{dial::Seed, errors::ErrorText},
    },
};

/// The time limit for the reply of a connected node.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The time that the other seeds have to answer after the first one has.
const SEED_GRACE: Duration = Duration::from_millis(100);
/// The time without operations after which a node that holds no slot is dropped.
const KEEP_UNUSED: Duration = Duration::from_secs(60);

impl Nodes for Shared {
    type Node = Arc<Node>;

    fn known(&self) -> Option<Arc<SlotMap<Arc<Node>>>> {
        match &*self.map.borrow() {
            MapState::Known(map) => Some(Arc::clone(map)),
            MapState::Asking | MapState::Unknown(_) => None,
        }
    }

    async fn ask(self: Arc<Self>, node: Arc<Node>) -> Option<Said> {
        let deadline = Instant::now() + TIMEOUT.min(self.config.deadline);
        let question = question();
        let asking = node.requests().send(deadline, &question, OnDrop::Retry);
        let answer = asking.await.ok()?;
        let address = answer.live.connected.address.clone();
        let (slots, nodes): (Value, String) = answer.read().ok()?.reply;
        let claims = claims(slots, &nodes, &address)?;
        Some((address, claims))
    }

    /// Waits until one has answered and [`SEED_GRACE`] has passed.
    async fn ask_seeds(self: &Arc<Self>) -> Result<Vec<Said>, Error> {
        let mut tasks = JoinSet::new();
        for seed in self.find_seeds().await {
            let shared = Arc::clone(self);
            tasks.spawn(async move { shared.ask_seed(&seed).await });
        }
        let (mut said, mut errors) = (Vec::new(), Vec::new());
        let mut until = None;
        loop {
            let next = match until {
                None => tasks.join_next().await,
                Some(until) => timeout_at(until, tasks.join_next()).await.unwrap_or(None),
            };
            match next {
                None => break,
                Some(Ok(Ok(answer))) => {
                    said.push(answer);
                    until.get_or_insert_with(|| Instant::now() + SEED_GRACE);
                }
                Some(Ok(Err(error))) => errors.push(error),
                // Impossible: these tasks do not panic, and are not aborted before the end of this loop.
                Some(Err(_)) => {}
            }
        }
        if !said.is_empty() {
            return Ok(said);
        }
        let kind = errors.first().map_or(ErrorKind::Unavailable, Error::kind);
        let message = "no node of the cluster can be asked which slots are where";
        Err(ErrorText::all(kind, message, &errors))
    }

    /// Connects to new primaries, and drops nodes that are no longer in the map.
    fn adopt(&self, ranges: &[Range]) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let map = SlotMap::new(ranges, |primary| {
            let (node, _) = self.node(&mut nodes, primary.clone());
            Arc::clone(node)
        });
        nodes.retain(|_, (node, used)| {
            let mut primaries = map.primaries();
            used.elapsed() < KEEP_UNUSED || primaries.any(|(_, held)| Arc::ptr_eq(held, node))
        });
        drop(nodes);
        self.map.send_replace(MapState::Known(Arc::new(map)));
    }

    fn failed(&self, error: Error) {
        self.config.status.note(&error);
        self.map.send_if_modified(|map| {
            let unknown = !matches!(map, MapState::Known(_));
            if unknown {
                *map = MapState::Unknown(error);
            }
            unknown
        });
    }

    async fn outdated(&self) {
        self.outdated.notified().await;
    }
}

impl Shared {
    /// The configured nodes, or those with the configured names.
    async fn find_seeds(&self) -> Vec<Seed> {
        let mut tasks = JoinSet::new();
        for configured in self.seeds.clone() {
            let config = Arc::clone(&self.config);
            tasks.spawn(async move {
                let seeds = config.dialer.seeds(&configured).await;
                // Who asks the seed gets the error.
                seeds.unwrap_or_else(|_| vec![Seed::at(&configured)])
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }

    async fn ask_seed(&self, seed: &Seed) -> Result<Said, Error> {
        let (config, address) = (&self.config, &seed.address);
        let asking = async {
            let mut connection = config.dialer.dial_seed(seed, drop).await?;
            let (slots, nodes) = question().query_async(&mut connection).await?;
            Ok::<(Value, String), RedisError>((slots, nodes))
        };
        match timeout(config.connect_timeout, asking).await {
            Ok(Ok((slots, nodes))) => match claims(slots, &nodes, address) {
                Some(claims) => Ok((address.clone(), claims)),
                None => Err(Error::new(
                    ErrorKind::Store,
                    format!("the map of slots cannot be read, at {address}"),
                )),
            },
            Ok(Err(error)) => Err(config.errors.convert_at(address, &error)),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "no answer within {:?}, at {address}",
                    config.connect_timeout
                ),
            )),
        }
    }
}

fn question() -> Pipeline {
    let mut question = Pipeline::with_capacity(2);
    question.cmd("CLUSTER").arg("SLOTS");
    question.cmd("CLUSTER").arg("NODES");
    question
}
