//! Runs operations on pooled connections, with deadlines and retries.

use std::{
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
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use super::{
    errors::{Failure, timed_out},
    pool::{Link, Pool},
    schema,
    sql::{SLOTS, Sql, slot_of},
};
use crate::{Error, store::admission::Admission};

/// The maximum number of retries after the server rolled an operation back because of locks.
const LOCKED: u32 = 8;
/// The backoff before the first of these retries.
const PAUSE: Duration = Duration::from_millis(2);
/// The maximum number of retries after the loss of a connection in use.
const LOST: u32 = 1;
/// The maximum number of retries after a failed attempt to connect. They are counted apart from lost connections: an
/// operation whose attempt to connect fails may still find an idle connection that is dead, and the other way round.
const CONNECTS: u32 = 1;

type Outcome<T> = Result<(Link, T), Failure>;
type BoxedWork<T> = Pin<Box<dyn Future<Output = Outcome<T>> + Send>>;

pub(super) struct Client {
    pub(super) pool: Arc<Pool>,
    pub(super) sql: Sql,
    deadline: Duration,
    /// Whether a check has found the tables.
    migrated: AtomicBool,
    /// Serialize the transactions of the users of a slot, so that waiting for its lock takes at most one connection.
    queues: Box<[Semaphore]>,
    pub(super) admission: Arc<Admission>,
}

/// The policy for a connection that drops when the server may have committed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenUnsure {
    Repeat,
    Fail,
}

impl Client {
    pub(super) fn new(pool: Pool, sql: Sql, deadline: Duration, admission: Admission) -> Self {
        Self {
            pool: Arc::new(pool),
            sql,
            deadline,
            migrated: AtomicBool::new(false),
            queues: (0..SLOTS).map(|_| Semaphore::new(1)).collect(),
            admission: Arc::new(admission),
        }
    }

    /// The time limit of one operation.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Runs work on one connection within the deadline, and retries it if the connection is lost. Successful work
    /// returns the connection.
    ///
    /// If the caller is dropped, the work continues until the deadline, because a connection with a statement in flight
    /// would have to be closed.
    pub(super) async fn run<T, F>(&self, work: impl Fn(Link) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        self.run_by(Instant::now() + self.deadline, work).await
    }

    /// Like [`run`](Self::run), for a check.
    pub(super) async fn check<T, F>(&self, work: impl Fn(Link) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let deadline = Instant::now() + self.deadline;
        let _turn = by(deadline, self.pool.check_turn()).await??;
        self.run_by(deadline, work).await
    }

    async fn run_by<T, F>(&self, deadline: Instant, work: impl Fn(Link) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let work = |link| Finish {
            work: Some(Box::pin(work(link)) as BoxedWork<T>),
            pool: Arc::clone(&self.pool),
            deadline,
        };
        self.attempts(deadline, WhenUnsure::Repeat, work).await
    }

    /// Like [`run`](Self::run), for work that borrows from its caller: dropping the caller drops it.
    pub(super) async fn borrowing<T, F>(&self, work: impl Fn(Link) -> F) -> Result<T, Error>
    where
        F: Future<Output = Outcome<T>>,
    {
        let deadline = Instant::now() + self.deadline;
        self.attempts(deadline, WhenUnsure::Repeat, work).await
    }

    /// Runs a transaction that may wait for the user's lock. It is rolled back if the caller is dropped, and also
    /// retried if the server rolls it back because of locks.
    pub(super) async fn transaction<T, F>(
        &self,
        user_id: &str,
        when_unsure: WhenUnsure,
        work: impl Fn(Link) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Outcome<T>>,
    {
        let deadline = Instant::now() + self.deadline;
        let queue = &self.queues[usize::from(slot_of(user_id))];
        // An error is impossible: the semaphore is never closed.
        let _queue = by(deadline, queue.acquire()).await?;
        let _turn = by(deadline, self.pool.turn()).await??;
        self.attempts(deadline, when_unsure, work).await
    }

    /// Runs a transaction of no particular user, with its own time limit.
    pub(super) async fn maintenance<T, F>(
        &self,
        limit: Duration,
        work: impl Fn(Link) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Outcome<T>>,
    {
        let deadline = Instant::now() + limit;
        let _turn = by(deadline, self.pool.turn()).await??;
        self.attempts(deadline, WhenUnsure::Repeat, work).await
    }

    async fn attempts<T, F>(
        &self,
        deadline: Instant,
        when_unsure: WhenUnsure,
        work: impl Fn(Link) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Outcome<T>>,
    {
        let (mut lost, mut failed_connects, mut locked) = (0, 0, 0);
        let (mut repeated, mut late) = (false, false);
        loop {
            let permit = by(deadline, self.pool.permit()).await??;
            let attempt = async {
                let mut link = self.link(permit, deadline, late).await?;
                link.is_retry = repeated;
                Ok::<_, Failure>(work(link).await)
            };
            let failure = match self.answered_by(deadline, attempt).await? {
                Ok(Ok((link, value))) => {
                    self.pool.give_back(link);
                    return Ok(value);
                }
                Ok(Err(failure)) => failure,
                // No connection was ready, which says nothing about the open ones.
                Err(failure) => {
                    if late && matches!(failure, Failure::ReadOnly) {
                        // The server refused the write because it is read-only, not because it was late.
                        self.pool.distrust();
                    }
                    if failure.is_lost() && failed_connects < CONNECTS {
                        failed_connects += 1;
                        continue;
                    }
                    return Err(failure.into());
                }
            };
            if failure.is_rolled_back() && locked < LOCKED {
                locked += 1;
                by(deadline, sleep(PAUSE * locked)).await?;
                continue;
            }
            if failure.is_lost() {
                late = failure.is_late_or_read_only();
                if failure.casts_doubt_on_others() {
                    // Most likely the server is down, and all connections with it, or it is no longer the primary.
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

    /// Waits for the server until the deadline. If the server was silent for half of the operation's time or longer,
    /// the idle connections that were last used before that are closed as well.
    async fn answered_by<T>(
        &self,
        deadline: Instant,
        attempt: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let asked = Instant::now();
        // The timeout drops, and thereby closes, the connection: the reply may still arrive on it.
        by(deadline, attempt).await.inspect_err(|_| {
            // An operation that spent its time in a local queue proves nothing about the server.
            if asked.elapsed() >= self.deadline / 2 {
                self.pool.close_silent(asked);
            }
        })
    }

    /// Takes a connection from the pool, or opens a `new` one, which checks that its server accepts writes. The first
    /// one also checks the tables.
    async fn link(
        &self,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
        new: bool,
    ) -> Result<Link, Failure> {
        let mut link = match new {
            true => self.pool.take_new(permit, deadline).await?,
            false => self.pool.take(permit, deadline).await?,
        };
        if !self.migrated.load(Ordering::Relaxed) {
            schema::check(&mut link, &self.sql).await?;
            self.migrated.store(true, Ordering::Relaxed);
        }
        Ok(link)
    }
}

/// Waits until the deadline of an operation.
async fn by<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Error> {
    timeout_at(deadline, work).await.map_err(|_| timed_out())
}

/// Work on a connection that continues in the background when it is dropped.
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
