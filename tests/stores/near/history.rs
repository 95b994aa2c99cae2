//! A history of random logins, refreshes, logouts and checks, with faults of every kind in between.
//!
//! Every answer of a near-cache is held against what was acknowledged, by the clock of the test.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::sleep};
use tower_bearer_session::{NearCache, RedisStore, SessionStore, TokenId, store::PutMode};

use super::{LONG_TIMEOUT, faults::TRACKING_OFF, is_hit};
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::{HOUR, session, token_id},
};

const MAX_STALENESS: Duration = Duration::from_millis(200);
pub(super) const USERS: usize = 10;

/// What is known of a session.
#[derive(Clone, Copy)]
struct Known {
    user: usize,
    id: TokenId,
    /// When its end was acknowledged.
    ended: Option<Instant>,
    /// Whether it must be live: nobody has begun to end it.
    is_live: bool,
}

/// The latest sessions of each user, and what the checkers have seen.
#[derive(Default)]
pub(super) struct History {
    sessions: Mutex<Vec<Known>>,
    /// Held during a write, and while all sessions end.
    writing: tokio::sync::Mutex<()>,
    is_over: AtomicBool,
    hits: AtomicU64,
    checks: AtomicU64,
}

impl History {
    fn sessions(&self) -> MutexGuard<'_, Vec<Known>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, which: impl Fn(&Known) -> bool, change: impl Fn(&mut Known)) {
        let mut sessions = self.sessions();
        sessions
            .iter_mut()
            .filter(|known| which(known))
            .for_each(change);
    }

    /// Ends all sessions.
    async fn end_all(&self, ending: impl Future) {
        let _no_write = self.writing.lock().await;
        self.change(|_| true, |known| known.is_live = false);
        ending.await;
        let now = Instant::now();
        self.change(|_| true, |known| known.ended = known.ended.or(Some(now)));
    }

    async fn write(&self, store: &RedisStore) {
        let mut random = Random(1);
        for n in 1.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let writing = self.writing.lock().await;
            let (user, id) = (random.below(USERS), token_id(n));
            let name = format!("user {user}");
            let is_its = |known: &Known| known.user == user;
            match random.below(6) {
                0 | 1 => {
                    let created = store.create(&name, &id, &session(HOUR), None).await;
                    let mut sessions = self.sessions();
                    sessions.push(Known {
                        user,
                        id,
                        ended: None,
                        is_live: created.is_ok(),
                    });
                    let excess = sessions.len().saturating_sub(6 * USERS);
                    sessions.drain(..excess);
                }
                2 => {
                    let one = self.sessions().iter().find(|known| is_its(known)).copied();
                    if let Some(one) = one {
                        let _ = store.refresh(&name, &one.id, 2 * HOUR).await;
                    }
                }
                3 => {
                    let one = self.sessions().iter().find(|known| is_its(known)).copied();
                    if let Some(one) = one {
                        let is_one = |known: &Known| known.id == one.id;
                        self.change(is_one, |known| known.is_live = false);
                        if store.delete(&name, &one.id).await.is_ok() {
                            let now = Instant::now();
                            self.change(is_one, |known| known.ended = known.ended.or(Some(now)));
                        }
                    }
                }
                4 => {
                    let value = n.to_be_bytes();
                    let _ = store.put_user(&name, &value, HOUR, PutMode::Replace).await;
                }
                _ => {
                    self.change(is_its, |known| known.is_live = false);
                    if store.delete_all(&name, None).await.is_ok() {
                        let now = Instant::now();
                        self.change(is_its, |known| known.ended = known.ended.or(Some(now)));
                    }
                }
            }
            drop(writing);
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// One of the sessions, at random.
    async fn pick(&self, random: &mut Random) -> Option<(Known, String)> {
        tokio::task::yield_now().await;
        let sessions = self.sessions();
        let known = sessions.get(random.below(sessions.len().max(1))).copied()?;
        Some((known, format!("user {}", known.user)))
    }

    fn is_live(&self, known: &Known) -> bool {
        let sessions = self.sessions();
        sessions.iter().any(|it| it.id == known.id && it.is_live)
    }

    /// Checks by the near-cache and by the server, which never changes.
    async fn check(&self, store: &RedisStore, seed: u64) {
        let mut random = Random(seed);
        while !self.is_over.load(Ordering::Relaxed) {
            let Some((known, name)) = self.pick(&mut random).await else {
                continue;
            };
            let begun = Instant::now();
            if is_hit(store, &name, &known.id) {
                self.hits.fetch_add(1, Ordering::Relaxed);
                if let Some(ended) = known.ended {
                    let late = begun.saturating_duration_since(ended);
                    assert!(late <= MAX_STALENESS, "accepted {late:?} after its end");
                }
                continue;
            }
            self.checks.fetch_add(1, Ordering::Relaxed);
            let checked = store.check(&name, &known.id).await;
            let still = self.is_live(&known);
            if let Ok(checked) = checked {
                assert!(checked.is_some() || !still, "a live session was refused");
                assert!(
                    checked.is_none() || known.ended.is_none(),
                    "a check came too late"
                );
            }
        }
    }

    /// Checks by the near-cache, at servers that take over from one another and may forget what was acknowledged: then
    /// it is the server's answers that count.
    async fn check_hits(&self, store: &RedisStore, refusals: &Refusals, seed: u64) {
        let mut random = Random(seed);
        while !self.is_over.load(Ordering::Relaxed) {
            let Some((known, name)) = self.pick(&mut random).await else {
                continue;
            };
            let (begun, refused) = (Instant::now(), refusals.of(&known.id));
            if !is_hit(store, &name, &known.id) {
                continue;
            }
            self.hits.fetch_add(1, Ordering::Relaxed);
            let late = refused.map(|refused| begun.saturating_duration_since(refused));
            if let Some(late) = late.filter(|late| *late > MAX_STALENESS) {
                // A server that took over may have the session again.
                let again = store.check(&name, &known.id).await;
                assert!(
                    !matches!(again, Ok(None)),
                    "accepted {late:?} after the server refused it"
                );
            }
        }
    }

    /// Checks by the server. `is_lossless`: whoever takes over knows all that was acknowledged.
    async fn check_answers(
        &self,
        store: &RedisStore,
        refusals: &Refusals,
        seed: u64,
        is_lossless: bool,
    ) {
        let mut random = Random(seed);
        while !self.is_over.load(Ordering::Relaxed) {
            let Some((known, name)) = self.pick(&mut random).await else {
                continue;
            };
            let Ok(checked) = store.check(&name, &known.id).await else {
                continue;
            };
            self.checks.fetch_add(1, Ordering::Relaxed);
            refusals.note(&known.id, checked.is_none());
            let was_refused = checked.is_none() && self.is_live(&known);
            assert!(!(is_lossless && was_refused), "a live session was refused");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Writes with a store without a near-cache, and checks with several that have one, until all faults are done.
    pub(super) async fn hold_against(
        self: Arc<Self>,
        url: &str,
        is_lossless: bool,
        faults: impl AsyncFnOnce(),
    ) {
        let builder = || RedisStore::builder(url).connect_timeout(LONG_TIMEOUT);
        let mut tasks = JoinSet::new();
        for seed in 0..3 {
            let near = NearCache::new().max_staleness(MAX_STALENESS);
            let near = if seed == 1 { near.per_key() } else { near };
            let store = builder().near_cache(near).connect().await.unwrap();
            let refusals = Arc::new(Refusals::default());
            let (history, of_hits) = (Arc::clone(&self), Arc::clone(&refusals));
            let near = store.clone();
            tasks.spawn(async move { history.check_hits(&near, &of_hits, seed).await });
            let history = Arc::clone(&self);
            tasks.spawn(async move {
                let seed = seed + 10;
                history
                    .check_answers(&store, &refusals, seed, is_lossless)
                    .await;
            });
        }
        let (plain, writer) = (builder().connect().await.unwrap(), Arc::clone(&self));
        tasks.spawn(async move { writer.write(&plain).await });
        faults().await;
        self.finish(tasks).await;
    }

    async fn finish(&self, mut tasks: JoinSet<()>) {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(task) = tasks.join_next().await {
            task.expect("no broken rule");
        }
        let [hits, checks] = [&self.hits, &self.checks].map(|it| it.load(Ordering::Relaxed));
        println!("{hits} hits, {checks} checks");
        // A busy machine makes fewer.
        assert!(hits > 100 && checks > 10, "{hits} hits, {checks} checks");
    }
}

/// When the server has refused each session, as long as it has not accepted it again.
#[derive(Default)]
struct Refusals(Mutex<HashMap<TokenId, Instant>>);

impl Refusals {
    fn of(&self, id: &TokenId) -> Option<Instant> {
        self.0.lock().unwrap().get(id).copied()
    }

    fn note(&self, id: &TokenId, is_refused: bool) {
        let mut refusals = self.0.lock().unwrap();
        match is_refused {
            true => drop(refusals.entry(*id).or_insert_with(Instant::now)),
            false => drop(refusals.remove(id)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_is_accepted_late_whatever_fails() {
    let server = RedisServer::start(Flavor::Redis).await;
    let history = Arc::new(History::default());
    let (mut proxies, mut tasks) = (Vec::new(), JoinSet::new());
    for seed in 0..3 {
        let near = NearCache::new().max_staleness(MAX_STALENESS);
        let near = if seed == 1 { near.per_key() } else { near };
        let proxy = Proxy::start(server.port()).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let store = RedisStore::builder(url)
            .connect_timeout(LONG_TIMEOUT)
            .near_cache(near);
        let store = store.connect().await.unwrap();
        proxies.push(proxy);
        let history = Arc::clone(&history);
        tasks.spawn(async move { history.check(&store, seed).await });
    }
    let plain = RedisStore::builder(server.url()).connect_timeout(LONG_TIMEOUT);
    let plain = plain.connect().await.unwrap();
    let writer = Arc::clone(&history);
    tasks.spawn(async move { writer.write(&plain).await });
    let mut random = Random(7);
    for round in 0..24 {
        sleep(Duration::from_millis(400)).await;
        let proxy = &proxies[random.below(proxies.len())];
        match round % 8 {
            0 => proxy.black_hole_existing(),
            1 => proxies.iter().for_each(|proxy| proxy.inject(TRACKING_OFF)),
            2 => proxy.drop_connections().await,
            3 => {
                server.freeze();
                sleep(Duration::from_millis(300)).await;
                server.thaw();
            }
            4 => proxy.set_delay(Duration::from_millis(30)),
            5 => history.end_all(server.cmd(&["FLUSHALL"])).await,
            6 => proxies
                .iter()
                .for_each(|proxy| proxy.set_delay(Duration::ZERO)),
            _ => history.end_all(server.restart()).await,
        }
    }
    history.finish(tasks).await;
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    /// One below this (SplitMix64).
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}
