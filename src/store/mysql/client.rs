//! How an operation gets a connection, and what becomes of it when something fails.

use std::{
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use super::{
    errors::{Failure, timed_out},
    pool::{Link, Pool},
    schema,
    sql::{SLOTS, Sql},
};
use crate::Error;

/// How often an operation is tried again that the server has undone because of locks.
const LOCKED: u32 = 8;
/// The pause before the first of these tries.
const PAUSE: Duration = Duration::from_millis(2);
/// How often an operation is tried again that has lost its connection.
const LOST: u32 = 1;

type Outcome<T> = Result<(Link, T), Failure>;
type BoxedWork<T> = Pin<Box<dyn Future<Output = Outcome<T>> + Send>>;

pub(super) struct Client {
    pub(super) pool: Arc<Pool>,
    pub(super) sql: Sql,
    deadline: Duration,
    /// Whether the tables were seen to be there.
    migrated: AtomicBool,
    /// One of them for each transaction under way of a user; users share them. Who waits for the lock of a user on the
    /// server, or for one that does, keeps at most one connection.
    queues: Box<[Semaphore]>,
    hasher: RandomState,
}

/// What to do if the connection drops when the server may have committed already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenUnsure {
    Repeat,
    Fail,
}

/// What an operation came to.
pub(super) struct Done<T> {
    pub(super) value: T,
    /// An earlier try may have been done as well: its connection was lost before it was answered.
    pub(super) repeated: bool,
}

impl Client {
    pub(super) fn new(pool: Pool, sql: Sql, deadline: Duration) -> Self {
        Self {
            pool: Arc::new(pool),
            sql,
            deadline,
            migrated: AtomicBool::new(false),
            queues: (0..SLOTS).map(|_| Semaphore::new(1)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// How long one operation may take.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Does some work on one connection within the deadline: again, if the connection was lost. The work gives back
    /// the connection unless it fails.
    ///
    /// If the caller goes away, the work goes on until the deadline: a connection on which something is under way
    /// would have to be closed.
    pub(super) async fn run<T, F>(&self, work: impl Fn(Link) -> F) -> Result<Done<T>, Error>
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let start = Instant::now();
        let deadline = start + self.deadline;
        let work = |link| Finish {
            work: Some(Box::pin(work(link)) as BoxedWork<T>),
            pool: Arc::clone(&self.pool),
            deadline,
        };
        let attempts = self.attempts(deadline, WhenUnsure::Repeat, work);
        self.within(start, deadline, attempts).await
    }

    /// The same for what borrows from its caller, and does not go on without it.
    pub(super) async fn borrowing<T, F>(&self, work: impl Fn(Link) -> F) -> Result<Done<T>, Error>
    where
        F: Future<Output = Outcome<T>>,
    {
        let start = Instant::now();
        let deadline = start + self.deadline;
        let attempts = self.attempts(deadline, WhenUnsure::Repeat, work);
        self.within(start, deadline, attempts).await
    }

    /// The same for a transaction, which may have to wait for a lock, that of the user if there is one. It is tried
    /// again, too, if the server has undone it because of locks, and rolled back if the caller goes away.
    pub(super) async fn transaction<T, F>(
        &self,
        user_id: &str,
        when_unsure: WhenUnsure,
        work: impl Fn(Link) -> F,
    ) -> Result<Done<T>, Error>
    where
        F: Future<Output = Outcome<T>>,
    {
        let start = Instant::now();
        let deadline = start + self.deadline;
        let work = async {
            let queue = self.hasher.hash_one(user_id) % u64::from(SLOTS);
            // It is never closed.
            let _queue = self.queues[queue as usize].acquire().await;
            let _turn = self.pool.turn().await?;
            self.attempts(deadline, when_unsure, work).await
        };
        self.within(start, deadline, work).await
    }

    /// The same for a transaction that concerns nobody in particular, within a time of its own.
    pub(super) async fn maintenance<T, F>(
        &self,
        limit: Duration,
        work: impl Fn(Link) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Outcome<T>>,
    {
        let start = Instant::now();
        let deadline = start + limit;
        let work = async {
            let _turn = self.pool.turn().await?;
            self.attempts(deadline, WhenUnsure::Repeat, work).await
        };
        let done = self.within(start, deadline, work).await?;
        Ok(done.value)
    }

    async fn within<T>(
        &self,
        start: Instant,
        deadline: Instant,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // The connection of what is late is closed: the answer may still come.
        timeout_at(deadline, work).await.unwrap_or_else(|_| {
            self.pool.close_silent(start);
            Err(timed_out())
        })
    }

    async fn attempts<T, F>(
        &self,
        deadline: Instant,
        when_unsure: WhenUnsure,
        work: impl Fn(Link) -> F,
    ) -> Result<Done<T>, Error>
    where
        F: Future<Output = Outcome<T>>,
    {
        let (mut lost, mut locked, mut repeated, mut late) = (0, 0, false, false);
        loop {
            let link = match self.link(deadline, late).await {
                Ok(link) => link,
                // Other connections may be all right.
                Err(failure) if failure.is_lost() && lost < LOST => {
                    lost += 1;
                    continue;
                }
                Err(failure) => {
                    if late && matches!(failure, Failure::ReadOnly) {
                        // So that was why the server refused the write.
                        self.pool.distrust();
                    }
                    return Err(failure.into());
                }
            };
            let failure = match work(link).await {
                Ok((link, value)) => {
                    self.pool.give_back(link);
                    return Ok(Done { value, repeated });
                }
                Err(failure) => failure,
            };
            if failure.is_rolled_back() && locked < LOCKED {
                locked += 1;
                sleep(PAUSE * locked).await;
                continue;
            }
            if failure.is_lost() {
                late = failure.is_late_or_read_only();
                if failure.casts_doubt_on_others() {
                    // Most likely the server has gone, and all connections with it, or it is no longer the one to ask.
                    self.pool.distrust();
                }
                let again = failure.is_refusal()
                    || when_unsure == WhenUnsure::Repeat
                    || !matches!(failure, Failure::Unsure(_));
                if lost < LOST && again {
                    lost += 1;
                    repeated |= !failure.is_refusal();
                    continue;
                }
            }
            return Err(failure.into());
        }
    }

    /// A connection to a server on which the tables are those that the statements are about.
    /// A `new` one has just asked its server whether it takes writes.
    async fn link(&self, deadline: Instant, new: bool) -> Result<Link, Failure> {
        let mut link = match new {
            true => self.pool.take_new(deadline).await?,
            false => self.pool.take(deadline).await?,
        };
        if !self.migrated.load(Ordering::Relaxed) {
            schema::check(&mut link, &self.sql).await?;
            self.migrated.store(true, Ordering::Relaxed);
        }
        Ok(link)
    }
}

/// Work on a connection that goes on without its caller.
struct Finish<T: Send + 'static> {
    work: Option<BoxedWork<T>>,
    pool: Arc<Pool>,
    deadline: Instant,
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let work = self.work.as_mut().expect("polled after its end");
        let outcome = ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(outcome)
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        let (deadline, pool) = (self.deadline, Arc::clone(&self.pool));
        let Some(work) = self.work.take().filter(|_| Instant::now() < deadline) else {
            return;
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                match timeout_at(deadline, work).await {
                    Ok(Ok((link, _))) => pool.give_back(link),
                    Ok(Err(failure)) if failure.casts_doubt_on_others() => pool.distrust(),
                    _ => {}
                }
            });
        }
    }
}
