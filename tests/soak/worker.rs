//! A worker: it does everything that can be done to its own users, on any of the stores, and judges every answer.

use std::{
    collections::VecDeque,
    fmt::Debug,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;
use tower_bearer_session::{Error, ErrorKind, SessionStore};

use crate::{
    model::{Asked, Evidence, Known, Value},
    random::Random,
    scene::{Phase, Scene},
};

/// The users of each worker.
const USERS: usize = 3;
/// So many ended sessions of a user are watched.
const ENDED: usize = 24;
/// So many operations on a user are told when something is wrong.
const HISTORY: usize = 40;
/// No operation takes longer, on however busy a machine.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Worker<S> {
    number: usize,
    pub(super) stores: Vec<S>,
    pub(super) random: Random,
    pub(super) users: Vec<User>,
    pub(super) scene: Arc<Scene>,
    /// The last token, and the last value.
    last: u64,
}

/// A user whom nobody else logs in or out.
pub(crate) struct User {
    pub(super) name: String,
    pub(super) live: Vec<Known>,
    /// The sessions that have ended, the latest one last.
    pub(super) ended: VecDeque<Known>,
    pub(super) value: Value,
    history: VecDeque<String>,
    /// Wrong answers about what may have been undone.
    suspicions: VecDeque<Suspicion>,
}

struct Suspicion {
    what: String,
    since: Instant,
    seen: Instant,
}

impl<S: SessionStore + Clone> Worker<S> {
    pub(crate) fn new(number: usize, stores: Vec<S>, scene: &Arc<Scene>) -> Self {
        let seed = scene.seed ^ (number as u64 + 1).wrapping_mul(0xA076_1D64_78BD_642F);
        let users = (0..USERS).map(|user| User::new(format!("worker {number}, user {user}")));
        Self {
            number,
            stores,
            random: Random::new(seed),
            users: users.collect(),
            scene: Arc::clone(scene),
            last: 0,
        }
    }

    /// Works until the phase changes.
    pub(crate) async fn work(mut self, mut phase: watch::Receiver<(u8, Phase)>) -> Self {
        while phase.borrow_and_update().1 == Phase::Work {
            let user = self.random.below(USERS);
            self.step(user).await;
            self.settle(user);
            // Otherwise some thousand operations a second would keep a small machine from everything else.
            tokio::time::sleep(self.random.millis(2, 10)).await;
        }
        self
    }

    /// A number that this worker has not used yet, and no other uses.
    pub(super) fn fresh(&mut self) -> u64 {
        self.last += 1;
        (self.number as u64 + 1) << 32 | self.last
    }

    pub(super) fn random_store(&mut self) -> usize {
        self.random.below(self.stores.len())
    }

    /// Awaits an operation, and writes down what became of it.
    pub(super) async fn call<T: Debug>(
        &mut self,
        user: usize,
        what: String,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> (Asked, Result<T, ErrorKind>) {
        let (began, at) = (SystemTime::now(), Instant::now());
        let outcome = operation.await;
        let (ended, took) = (SystemTime::now(), at.elapsed());
        let tally = &self.scene.tally;
        tally.operations.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).expect("a short time");
        tally.slowest.fetch_max(micros, Ordering::Relaxed);
        let told = match &outcome {
            Ok(answer) => format!("{answer:?}"),
            Err(error) => format!("{}", error.kind()),
        };
        let from = at.duration_since(self.scene.start).as_secs_f64();
        let to = from + took.as_secs_f64();
        self.users[user].tell(format!("  {from:9.3} to {to:9.3} {what}: {told}\n"));
        if took > LIMIT {
            self.wrong(user, "an operation took too long");
        }
        let outcome = outcome.map_err(|error| {
            self.scene.tally.failed.fetch_add(1, Ordering::Relaxed);
            let is_fine = match error.kind() {
                ErrorKind::Unavailable | ErrorKind::Timeout => true,
                ErrorKind::Unconfirmed => self.scene.may_lose,
                _ => false,
            };
            if !is_fine {
                self.wrong(user, &format!("{what}: {error:?}"));
            }
            error.kind()
        });
        (Asked { began, ended, at }, outcome)
    }

    /// An answer is wrong, unless the evidence may be undone.
    pub(super) fn object(&mut self, user: usize, what: String, evidence: Evidence) {
        if evidence.sure {
            self.wrong(user, &what);
        }
        self.users[user].tell(format!("  {what}\n"));
        let (since, seen) = (evidence.since, Instant::now());
        let suspicion = Suspicion { what, since, seen };
        self.users[user].suspicions.push_back(suspicion);
    }

    /// Judges the suspicions that can be judged now.
    fn settle(&mut self, user: usize) {
        while let Some(Suspicion { what, since, seen }) = self.users[user].suspicions.front() {
            match self.scene.losses.may_have_lost(*since, *seen) {
                None => return,
                Some(true) => {
                    self.scene.tally.undone.fetch_add(1, Ordering::Relaxed);
                    self.users[user].suspicions.pop_front();
                }
                Some(false) => {
                    let ago = seen.duration_since(*since).as_secs_f64();
                    let what = format!("{what} (known {ago:.3} s before, no failover near)");
                    self.wrong(user, &what);
                }
            }
        }
    }

    pub(super) fn wrong(&self, user: usize, what: &str) -> ! {
        let User { name, history, .. } = &self.users[user];
        let history: String = history.iter().map(String::as_str).collect();
        self.scene.wrong(&format!("{name}: {what}"), &history)
    }
}

impl User {
    fn new(name: String) -> Self {
        Self {
            name,
            live: Vec::new(),
            ended: VecDeque::new(),
            value: Value {
                may_be: vec![None],
                evidence: Evidence {
                    sure: true,
                    since: Instant::now(),
                },
            },
            history: VecDeque::new(),
            suspicions: VecDeque::new(),
        }
    }

    fn tell(&mut self, line: String) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(line);
    }

    /// Puts sessions that have ended where they are watched.
    pub(super) fn sort(&mut self) {
        use crate::model::State;
        for known in self.live.extract_if(.., |it| it.state == State::Dead) {
            if self.ended.len() == ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(known);
        }
        // What came back after a failover is watched as a live session.
        let mut at = 0;
        while at < self.ended.len() {
            if self.ended[at].state == State::Dead {
                at += 1;
            } else if let Some(back) = self.ended.remove(at) {
                self.live.push(back);
            }
        }
    }
}
