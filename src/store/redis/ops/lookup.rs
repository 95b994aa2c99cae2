//! Looking sessions up: the one thing that is done for every request.
//!
//! A lookup is the pipeline `TIME`, `HGET`, `GET`. The time comes first: what is live at that moment, and still there
//! afterwards, is live. Lookups that begin while others are under way share a pipeline with each other, and its
//! `TIME`. It is sent as soon as the tasks that are ready have had their turn; no lookup waits for the answer to
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
        wire::{Reply, Time, clock::micros, unexpected_reply},
    },
};

/// The most lookups that share a pipeline: the first answer must not be late for the sake of the last.
const MAX_BATCH: usize = 128;
/// A batch that is older need not wait for its turn, whatever keeps its task.
const MAX_AGE: Duration = Duration::from_millis(1);

/// Where to look.
pub(crate) struct LookupKeys<'a> {
    /// The key of the user's sessions.
    pub(crate) sessions: &'a str,
    pub(crate) token_id: &'a TokenId,
    /// The key of the user's cached value.
    pub(crate) user: &'a str,
}

/// What was there: a string, nil or an error each.
pub(crate) struct LookupReply {
    now: Time,
    session: Value,
    user: Value,
}

/// A connection for lookups, with those that wait to share a pipeline.
pub(crate) struct Lookups {
    pub(crate) link: Link,
    in_flight: AtomicUsize,
    next: Mutex<Batch>,
}

/// Who waits for a lookup.
type Waiting = oneshot::Sender<Result<LookupReply, Error>>;

/// Lookups that will share a pipeline.
#[derive(Default)]
struct Batch {
    commands: Pipeline,
    waiting: Vec<Waiting>,
    /// The first and the last one.
    deadlines: Option<[Instant; 2]>,
}

/// Whose turn it is to send the next batch of a link; if it is dropped before, those who wait hear that nobody will.
struct FlushGuard(Option<Arc<Lookups>>);

/// Counts a lookup for as long as it is there.
struct InFlight<'a>(&'a AtomicUsize);

impl Lookups {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            in_flight: AtomicUsize::new(0),
            next: Mutex::default(),
        }
    }

    /// Looks a session and its user up, in one round trip.
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

    /// Puts a lookup into the next batch, and sees to it that this is sent.
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
    /// The pipeline of this lookup alone.
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
    /// The answer to a lookup alone.
    fn of(answer: Answer) -> Result<Self, Failure> {
        let mut found = Self::all_of(answer, 1)?;
        found
            .next()
            .ok_or_else(|| Failure::Down(unexpected_reply("check")))
    }

    /// The same, put together from what two nodes returned: its time may be that of the other one.
    pub(crate) fn of_two_nodes(answer: Answer) -> Result<Self, Failure> {
        let mut found = Self::read_all(answer.values, 1)?;
        found
            .next()
            .ok_or_else(|| Failure::Down(unexpected_reply("check")))
    }

    /// The answers to so many lookups, in their order.
    fn all_of(answer: Answer, lookups: usize) -> Result<impl Iterator<Item = Self>, Failure> {
        let mut found = Self::read_all(answer.values, lookups)?.peekable();
        if let Some(first) = found.peek() {
            answer.live.connected.clock.note(micros(first.now));
        }
        Ok(found)
    }

    fn read_all(values: Vec<Value>, lookups: usize) -> Result<impl Iterator<Item = Self>, Failure> {
        // Nobody may get the answer to somebody else.
        if values.len() != 1 + 2 * lookups {
            return Err(Failure::Down(unexpected_reply("check")));
        }
        let mut values = values.into_iter();
        let now = values.next().unwrap_or(Value::Nil).extract_error();
        let now = now.and_then(|now| Ok(redis::from_redis_value(now)?));
        let now = now.map_err(Failure::Redis)?;
        Ok(iter::from_fn(move || {
            let (session, user) = (values.next()?, values.next()?);
            Some(Self { now, session, user })
        }))
    }

    /// Whether the server refused a part of it.
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

    /// The time, the record of the session and the cached value of the user.
    pub(crate) fn read(self) -> Result<(Time, Reply, Reply), Failure> {
        let read = |value: Value| Ok(redis::from_redis_value(value.extract_error()?)?);
        let session = read(self.session).map_err(Failure::Redis)?;
        let user = read(self.user).map_err(Failure::Redis)?;
        Ok((self.now, session, user))
    }
}

impl FlushGuard {
    async fn run(mut self) {
        // Whoever is ready gets on board. Tokio's `yield_now` would bind the task to this worker, whatever that one
        // does next; this one goes to the back of the queue, from where other workers take tasks.
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
            // It did not wait for its turn, and has been sent.
            return;
        };
        let lookups = self.waiting.len();
        let answer = queue.link.send_batch(deadline, &self.commands);
        let found = answer.await.and_then(|it| LookupReply::all_of(it, lookups));
        match found {
            Ok(found) => {
                for (waiting, found) in self.waiting.into_iter().zip(found) {
                    // Nobody may be waiting any more.
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

/// A command that has room for its parts from the beginning.
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
