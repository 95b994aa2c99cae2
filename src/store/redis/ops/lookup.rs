//! Session lookups, one for every request.
//!
//! A lookup is the pipeline `TIME`, `HGET`, `GET`, and `PTTL` for a near-cache. `TIME` comes first: a session that has
//! not expired at that time, and is still in the hash afterwards, is live. Lookups that begin while others are in
//! flight share a pipeline and its `TIME`. The pipeline is sent as soon as all tasks that are ready have run once; no
//! lookup waits for the reply to another one.

use std::{
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use redis::{Cmd, Pipeline};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::reply::LookupReply;
use crate::{
    Error, TokenId,
    store::{
        admission::{Outcome, Permit},
        redis::conn::{
            link::{Answer, Failure, Link, OnDrop, runtime_is_gone},
            live::Live,
        },
    },
};

/// The maximum number of lookups in a pipeline: the first reply must not be late because of the last.
const MAX_BATCH: usize = 128;
/// The maximum length of the keys in a pipeline, unless one lookup alone has more, in bytes.
const MAX_BATCH_BYTES: usize = 64 * 1024;
/// The longest time after its deadline for which a batch waits for a reply, to learn that the server answers.
const MAX_LATENESS: Duration = Duration::from_secs(5);
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

/// A link for lookups, and the batch that is sent next.
pub(crate) struct Lookups {
    pub(crate) link: Link,
    next: Mutex<Batch>,
}

/// Receives the reply to a lookup, which is in flight until then.
type Waiting = (oneshot::Sender<Result<LookupReply, Error>>, Permit);

/// Lookups that will share a pipeline.
#[derive(Default)]
struct Batch {
    commands: Pipeline,
    waiting: Vec<Waiting>,
    /// The length of the keys.
    bytes: usize,
    /// The deadlines of the first and the last lookup.
    deadlines: Option<[Instant; 2]>,
}

/// Sends the next batch; dropping it earlier fails the lookups in that batch.
struct FlushGuard(Option<Arc<Lookups>>);

impl Lookups {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            next: Mutex::default(),
        }
    }

    /// Looks up a session and its user, in one round trip. Fails at once if the server is overloaded.
    pub(crate) async fn look_up(
        self: &Arc<Self>,
        deadline: Instant,
        keys: &LookupKeys<'_>,
    ) -> Result<LookupReply, Failure> {
        let live = self.link.live_until(deadline, 0).await?;
        let Some(permit) = live.admission.admit() else {
            self.link.config.status.refused();
            return Err(Failure::Overloaded);
        };
        let sent = Instant::now();
        // While replies are late, batches wait for them, and this does not.
        let answer = if permit.others == 0 && live.admission.is_open() {
            let commands = keys.commands(self.fill_near());
            let first = Arc::clone(&live);
            let link = &self.link;
            let answer = link
                .send_from(first, deadline, &commands, OnDrop::Retry, Duration::ZERO)
                .await;
            record(&live, sent, &answer);
            answer.and_then(LookupReply::of)
        } else {
            let (sender, found) = oneshot::channel();
            self.enqueue(deadline, keys, (sender, permit));
            match timeout_at(deadline, found).await {
                Ok(Ok(found)) => found.map_err(Failure::Down),
                Ok(Err(_)) => Err(no_reply()),
                Err(_) => Err(Failure::Deadline),
            }
        };
        if let Err(Failure::Deadline) = answer {
            live.admission.record(sent, Outcome::Missed);
        }
        answer
    }

    /// Adds a lookup to the next batch, and makes sure that the batch is sent.
    fn enqueue(self: &Arc<Self>, deadline: Instant, keys: &LookupKeys<'_>, waiting: Waiting) {
        let mut next = self.next();
        keys.add_to(&mut next.commands, self.fill_near());
        next.waiting.push(waiting);
        next.bytes += keys.sessions.len() + keys.user.len();
        let [first, last] = *next.deadlines.get_or_insert([deadline; 2]);
        next.deadlines = Some([first, last.max(deadline)]);
        let is_full = next.waiting.len() == MAX_BATCH || next.bytes >= MAX_BATCH_BYTES;
        if is_full || deadline > first + MAX_AGE {
            let batch = mem::take(&mut *next);
            drop(next);
            self.link.config.runtime.spawn(batch.send(Arc::clone(self)));
        } else if next.waiting.len() == 1 {
            drop(next);
            let turn = FlushGuard(Some(Arc::clone(self)));
            self.link.config.runtime.spawn(turn.run());
        }
    }

    /// Whether lookups fill a near-cache.
    fn fill_near(&self) -> bool {
        self.link.config.near.is_some()
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
    /// The pipeline for this lookup alone; with what a near-cache needs, or without.
    pub(crate) fn commands(&self, for_near: bool) -> Pipeline {
        let mut commands = Pipeline::with_capacity(4);
        self.add_to(&mut commands, for_near);
        commands
    }

    fn add_to(&self, commands: &mut Pipeline, for_near: bool) {
        if commands.is_empty() {
            commands.cmd("TIME");
        }
        commands.add_command(command(["HGET", self.sessions, &self.token_id.text()]));
        commands.add_command(command(["GET", self.user]));
        if for_near {
            commands.add_command(command(["PTTL", self.user]));
        }
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
        let sending = async {
            let live = queue.link.live_until(deadline, 0).await?;
            let (first, sent) = (Arc::clone(&live), Instant::now());
            let answer = queue
                .link
                .send_from(first, deadline, &self.commands, OnDrop::Retry, MAX_LATENESS)
                .await;
            record(&live, sent, &answer);
            answer
        };
        let found = sending
            .await
            .and_then(|answer| LookupReply::all_of(answer, lookups));
        match found {
            Ok(found) => {
                for ((waiting, _), found) in self.waiting.into_iter().zip(found) {
                    // The caller may be gone.
                    let _ = waiting.send(Ok(found));
                }
            }
            Err(failure) => {
                let error = queue.link.config.error(failure);
                for (waiting, _) in self.waiting {
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

/// Records how long the reply has taken, if it came at all.
fn record(live: &Live, sent: Instant, answer: &Result<Answer, Failure>) {
    match answer {
        // The time is that of two connections.
        Ok(Answer { repeated: true, .. }) => {}
        Ok(_) | Err(Failure::Late) => live.admission.record(sent, Outcome::Answered),
        Err(_) => {}
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
