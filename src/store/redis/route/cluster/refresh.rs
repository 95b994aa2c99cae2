use std::{sync::Arc, time::Duration};

use redis::{Pipeline, RedisError, Value};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    MapState, Shared,
    map::{Claim, claims, resolve},
    slots::SlotMap,
};
use crate::{
    Error, ErrorKind, jitter,
    store::redis::{
        conn::link::OnDrop,
        route::node::Node,
        wire::{address::Address, dial::Seed, errors::ErrorText},
    },
};

const POLL: Duration = Duration::from_secs(2);
/// The minimum time between two refreshes, however many operations fail, unless a poll is due. It doubles with each
/// refresh that brings no news until it reaches a maximum, and up to as much is added at random, so that processes that
/// observe the same fault do not refresh in step.
const PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_millis(600);
/// The time limit for the reply of a connected node.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The time that the other seeds have to answer after the first one has.
const SEED_GRACE: Duration = Duration::from_millis(100);
/// The maximum number of nodes that are asked at a time.
const MAX_ASKED: usize = 5;

/// The claims of one node.
type Said = (Address, Vec<Claim>);

/// The task that keeps the map of slots up to date.
pub(super) struct Refresher {
    pub(super) shared: Arc<Shared>,
    pub(super) seeds: Vec<Address>,
}

impl Refresher {
    pub(super) async fn run(self) {
        let (mut pause, mut poll) = (PAUSE, Instant::now());
        for round in 0.. {
            let begun = Instant::now();
            let is_poll = begun >= poll;
            if is_poll {
                poll = begun + POLL;
            }
            // However often it is asked for in between, a poll is in time.
            let next = poll.min(begun + pause + jitter::up_to(pause));
            let has_news = self.refresh(round, is_poll).await;
            let is_asked_for = tokio::select! {
                () = self.shared.outdated.notified() => true,
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
    /// failover yet. In between, the map is asked for because an operation has failed, maybe those of many processes at
    /// the same time: then one node is asked, and others only if it does not answer or knows another map.
    async fn refresh(&self, round: usize, is_poll: bool) -> bool {
        let known = match &*self.shared.map.borrow() {
            MapState::Known(map) => Some(Arc::clone(map)),
            MapState::Asking | MapState::Unknown(_) => None,
        };
        let mut said = Vec::new();
        if let Some(map) = &known {
            if !is_poll {
                let one = self.ask_primaries(map, jitter::number(), 1).await;
                if !one.is_empty() && resolve(&one) == map.ranges() {
                    return false;
                }
            }
            let from = round * MAX_ASKED;
            said = self.ask_primaries(map, from, MAX_ASKED).await;
        }
        if said.is_empty() {
            match self.ask_seeds().await {
                Ok(seeds) => said = seeds,
                Err(error) => {
                    self.shared.config.status.note(&error);
                    self.shared.map.send_if_modified(|map| {
                        let unknown = !matches!(map, MapState::Known(_));
                        if unknown {
                            *map = MapState::Unknown(error);
                        }
                        unknown
                    });
                    return false;
                }
            }
        }
        let ranges = resolve(&said);
        let has_news = known.is_none_or(|map| map.ranges() != ranges);
        self.shared.adopt(&ranges);
        has_news
    }

    /// Asks this number of primaries over the existing connections, from one of them on. Returns nothing if fewer than
    /// half of them answer, because these may be the ones that are cut off from the cluster.
    async fn ask_primaries(
        &self,
        map: &SlotMap<Arc<Node>>,
        from: usize,
        number: usize,
    ) -> Vec<Said> {
        let nodes: Vec<Arc<Node>> = map.primaries().map(|(_, node)| Arc::clone(node)).collect();
        let asked = nodes.len().min(number);
        let from = from % nodes.len().max(1);
        let mut tasks = JoinSet::new();
        for node in nodes.into_iter().cycle().skip(from).take(asked) {
            let deadline = Instant::now() + TIMEOUT.min(self.shared.config.deadline);
            tasks.spawn(async move {
                let question = question();
                let asking = node.requests().send(deadline, &question, OnDrop::Retry);
                let answer = asking.await.ok()?;
                let address = answer.live.connected.address.clone();
                let (slots, nodes): (Value, String) = answer.read().ok()?.reply;
                let claims = claims(slots, &nodes, &address)?;
                Some((address, claims))
            });
        }
        let said: Vec<Said> = tasks.join_all().await.into_iter().flatten().collect();
        if said.len() * 2 < asked {
            Vec::new()
        } else {
            said
        }
    }

    /// The configured nodes, or those with the configured names.
    async fn find_seeds(&self) -> Vec<Seed> {
        let mut tasks = JoinSet::new();
        for configured in self.seeds.clone() {
            let shared = Arc::clone(&self.shared);
            tasks.spawn(async move {
                let seeds = shared.config.dialer.seeds(&configured).await;
                // Who asks the seed gets the error.
                seeds.unwrap_or_else(|_| vec![Seed::at(&configured)])
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }

    /// Asks the configured nodes over new connections, until one has answered and [`SEED_GRACE`] has passed.
    async fn ask_seeds(&self) -> Result<Vec<Said>, Error> {
        let mut tasks = JoinSet::new();
        for seed in self.find_seeds().await {
            let shared = Arc::clone(&self.shared);
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
        match errors.first() {
            Some(error) if said.is_empty() => Err(ErrorText::all(
                error.kind(),
                "no node of the cluster can be asked which slots are where",
                &errors,
            )),
            _ => Ok(said),
        }
    }
}

impl Shared {
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
