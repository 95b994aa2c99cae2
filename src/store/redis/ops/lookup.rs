//! Session lookups, one for every request.
//!
//! A lookup is the pipeline `TIME`, `HGET`, `GET`. `TIME` comes first: a session that has not expired at that time, and
//! is still in the hash afterwards, is live. Lookups that begin while others are in flight share a pipeline and its
//! `TIME`. The pipeline is sent as soon as all tasks that are ready have run once; no lookup waits for the reply to
//! another one.

use std::{
    future::poll_fn,
    iter, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use redis::{Cmd, Pipeline, Value};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    Error, TokenId,
    store::redis::{
        conn::link::{Answer, Failure, Link, OnDrop, runtime_is_gone},
        near::lease::Lease,
        wire::{Reply, Time, clock::micros, unexpected_reply},
    },
};

/// The maximum number of lookups in a pipeline: the first reply must not be late because of the last.
const MAX_BATCH: usize = 128;
/// The age at which a batch is sent even if its flush task has not run yet.
const MAX_AGE: Duration = Duration::from_millis(1);

/// The keys of a lookup.
pub(crate) struct LookupKeys<'a> {
    /// The key of the user's sessions.
    pub(crate) sessions: &'a str,
    pub(crate) token_id: &'a TokenId,
    /// The key of the user's cached value.
    pub(crate) user: &'a str,
}

/// The reply to a lookup: a string, nil or an error for each read.
pub(crate) struct LookupReply {
    now: Time,
    session: Value,
    user: Value,
    /// As in [`Found`].
    lease: Option<Arc<Lease>>,
}

/// What a lookup has found.
pub(crate) struct Found {
    pub(crate) now: Time,
    /// The record of the session.
    pub(crate) session: Reply,
    /// The cached value of the user.
    pub(crate) user: Reply,
    /// The lease of the connection on which all was read, if there is a near-cache.
    pub(crate) lease: Option<Arc<Lease>>,
}

/// A link for lookups, and the batch that is sent next.
pub(crate) struct Lookups {
    pub(crate) link: Link,
    in_flight: AtomicUsize,
    next: Mutex<Batch>,
}

/// Receives the reply to a lookup.
type Waiting = oneshot::Sender<Result<LookupReply, Error>>;

/// Lookups that will share a pipeline.
#[derive(Default)]
struct Batch {
    commands: Pipeline,
    waiting: Vec<Waiting>,
    /// The deadlines of the first and the last lookup.
    deadlines: Option<[Instant; 2]>,
}

/// Sends the next batch; dropping it earlier fails the lookups in that batch.
struct FlushGuard(Option<Arc<Lookups>>);

/// Counts a lookup in flight until it is dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl Lookups {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            in_flight: AtomicUsize::new(0),
            next: Mutex::default(),
        }
    }

    /// Looks up a session and its user, in one round trip.
    pub(crate) async fn look_up(
        self: &Arc<Self>,
        deadline: Instant,
        keys: &LookupKeys<'_>,
    ) -> Result<LookupReply, Failure> {
        let others = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let _in_flight = InFlight(&self.in_flight);
        if others == 0 {
            let commands = keys.commands();
            return LookupReply::of(self.link.send(deadline, &commands, OnDrop::Retry).await?);
        }
        let (sender, found) = oneshot::channel();
        self.enqueue(deadline, keys, sender);
        match timeout_at(deadline, found).await {
            Ok(Ok(found)) => found.map_err(Failure::Down),
            Ok(Err(_)) => Err(no_reply()),
            Err(_) => Err(Failure::Deadline),
        }
    }

    /// Adds a lookup to the next batch, and makes sure that the batch is sent.
    fn enqueue(self: &Arc<Self>, deadline: Instant, keys: &LookupKeys<'_>, waiting: Waiting) {
        let mut next = self.next();
        keys.add_to(&mut next.commands);
        next.waiting.push(waiting);
        let [first, last] = *next.deadlines.get_or_insert([deadline; 2]);
        next.deadlines = Some([first, last.max(deadline)]);
        if next.waiting.len() == MAX_BATCH || deadline > first + MAX_AGE {
            let batch = mem::take(&mut *next);
            drop(next);
            self.link.config.runtime.spawn(batch.send(Arc::clone(self)));
        } else if next.waiting.len() == 1 {
            drop(next);
            let turn = FlushGuard(Some(Arc::clone(self)));
            self.link.config.runtime.spawn(turn.run());
        }
    }

    fn take(&self) -> Batch {
        mem::take(&mut *self.next())
    }

    fn next(&self) -> MutexGuard<'_, Batch> {
        // No code that holds the lock can panic halfway.
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LookupKeys<'_> {
    /// The pipeline for this lookup alone.
    pub(crate) fn commands(&self) -> Pipeline {
        let mut commands = Pipeline::with_capacity(3);
        self.add_to(&mut commands);
        commands
    }

    fn add_to(&self, commands: &mut Pipeline) {
        if commands.is_empty() {
            commands.cmd("TIME");
        }
        commands.add_command(command(["HGET", self.sessions, self.token_id.as_str()]));
        commands.add_command(command(["GET", self.user]));
    }
}

impl LookupReply {
    /// Reads the reply to a pipeline with one lookup.
    fn of(answer: Answer) -> Result<Self, Failure> {
        let mut found = Self::all_of(answer, 1)?;
        found
            .next()
            .ok_or_else(|| Failure::Down(unexpected_reply("check")))
    }

    /// Reads a reply that was assembled from those of two nodes: its time may be that of either node.
    pub(crate) fn of_two_nodes(answer: Answer) -> Result<Self, Failure> {
        let mut found = Self::read_all(answer.values, 1, None)?;
        found
            .next()
            .ok_or_else(|| Failure::Down(unexpected_reply("check")))
    }

    /// Reads the replies to this number of lookups, in their order.
    fn all_of(answer: Answer, lookups: usize) -> Result<impl Iterator<Item = Self>, Failure> {
        let lease = answer.live.lease().cloned();
        let mut found = Self::read_all(answer.values, lookups, lease)?.peekable();
        if let Some(first) = found.peek() {
            answer.live.connected.clock.note(micros(first.now));
        }
        Ok(found)
    }

    fn read_all(
        values: Vec<Value>,
        lookups: usize,
        lease: Option<Arc<Lease>>,
    ) -> Result<impl Iterator<Item = Self>, Failure> {
        // No lookup may get the reply to another one.
        if values.len() != 1 + 2 * lookups {
            return Err(Failure::Down(unexpected_reply("check")));
        }
        let mut values = values.into_iter();
        let now = values.next().unwrap_or(Value::Nil).extract_error();
        let now = now.and_then(|now| Ok(redis::from_redis_value(now)?));
        let now = now.map_err(Failure::Redis)?;
        Ok(iter::from_fn(move || {
            let (session, user) = (values.next()?, values.next()?);
            let lease = lease.clone();
            Some(Self {
                now,
                session,
                user,
                lease,
            })
        }))
    }

    /// Whether the server answered a read with an error.
    pub(crate) fn has_error(&self) -> bool {
        let mut replies = self.replies().into_iter();
        replies.any(|reply| matches!(reply, Value::ServerError(_)))
    }

    /// The replies to the two reads.
    pub(crate) fn replies(&self) -> [&Value; 2] {
        [&self.session, &self.user]
    }

    /// The replies to all commands of the lookup, in their order.
    pub(crate) fn into_values(self) -> Vec<Value> {
        let (seconds, micros) = self.now;
        let now = [seconds, micros].map(|part| Value::Int(part as i64));
        vec![Value::Array(now.to_vec()), self.session, self.user]
    }

    /// Reads the replies. Fails with the first error among them.
    pub(crate) fn read(self) -> Result<Found, Failure> {
        let read = |value: Value| Ok(redis::from_redis_value(value.extract_error()?)?);
        let session = read(self.session).map_err(Failure::Redis)?;
        let user = read(self.user).map_err(Failure::Redis)?;
        Ok(Found {
            now: self.now,
            session,
            user,
            lease: self.lease,
        })
    }
}

impl FlushGuard {
    async fn run(mut self) {
        // Lookups of tasks that are ready join the batch. Tokio's `yield_now` would bind this task to its worker,
        // whatever the worker does next; waking itself puts the task at the back of a queue that all workers take from.
        let mut yielded = false;
        poll_fn(|cx| {
            if mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        if let Some(lookups) = self.0.take() {
            let batch = lookups.take();
            batch.send(lookups).await;
        }
    }
}

impl Batch {
    async fn send(self, queue: Arc<Lookups>) {
        let Some([_, deadline]) = self.deadlines else {
            // The batch was full or old, and has been sent.
            return;
        };
        let lookups = self.waiting.len();
        let answer = queue.link.send_batch(deadline, &self.commands);
        let found = answer.await.and_then(|it| LookupReply::all_of(it, lookups));
        match found {
            Ok(found) => {
                for (waiting, found) in self.waiting.into_iter().zip(found) {
                    // The caller may be gone.
                    let _ = waiting.send(Ok(found));
                }
            }
            Err(failure) => {
                let error = queue.link.config.error(failure);
                for waiting in self.waiting {
                    let _ = waiting.send(Err(error.clone()));
                }
            }
        }
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        if let Some(lookups) = &self.0 {
            lookups.take();
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A command, allocated once for all its parts.
fn command<const PARTS: usize>(parts: [&str; PARTS]) -> Cmd {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut command = Cmd::with_capacity(PARTS, len);
    for part in parts {
        command.arg(part);
    }
    command
}

fn no_reply() -> Failure {
    Failure::Down(runtime_is_gone())
}
