//! Session lookups, one for every request.
//!
//! A lookup is the pipeline `TIME`, `HGET`, `GET`, and `PTTL` for a near-cache. `TIME` comes first: a session that has
//! not expired at that time, and is still in the hash afterwards, is live. Lookups that begin while others are in
//! flight share a pipeline and its `TIME`. The pipeline is sent as soon as all tasks that are ready have run once; no
//! lookup waits for the reply to another one.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Pipeline};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    batch::{Batch, Limits, NextBatch, Todo, Turn},
    reply::LookupReply,
};
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

/// The first reply of a pipeline must not be late because of the last.
const LIMITS: Limits = Limits {
    lookups: 128,
    bytes: 64 * 1024,
    age: Duration::from_millis(1),
};
/// The longest time after its deadline for which a batch waits for a reply, to learn that the server answers.
const MAX_LATENESS: Duration = Duration::from_secs(5);

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
    next: NextBatch<Pipeline, Waiting>,
}

/// Receives the reply to a lookup, which is in flight until then.
type Waiting = (oneshot::Sender<Result<LookupReply, Error>>, Permit);

impl Lookups {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            next: NextBatch::new(LIMITS),
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
            record(&live, sent, 1, &answer);
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
        let bytes = keys.sessions.len() + keys.user.len();
        let add_commands = |commands: &mut Pipeline| keys.add_to(commands, self.fill_near());
        let runtime = &self.link.config.runtime;
        match self.next.add(deadline, bytes, waiting, add_commands) {
            Todo::Nothing => {}
            Todo::Turn => {
                let lookups = Arc::clone(self);
                let turn = Turn::new(move || {
                    let batch = lookups.next.take()?;
                    Some((lookups, batch))
                });
                runtime.spawn(async move {
                    if let Some((lookups, batch)) = turn.come().await {
                        batch.send(lookups).await;
                    }
                });
            }
            Todo::Send(batch) => {
                runtime.spawn(batch.send(Arc::clone(self)));
            }
        }
    }

    /// Whether lookups fill a near-cache.
    fn fill_near(&self) -> bool {
        self.link.config.near.is_some()
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

impl Batch<Pipeline, Waiting> {
    async fn send(self, queue: Arc<Lookups>) {
        let (deadline, lookups) = (self.last_deadline, self.waiting.len());
        let sending = async {
            let live = queue.link.live_until(deadline, 0).await?;
            let (first, sent) = (Arc::clone(&live), Instant::now());
            let answer = queue
                .link
                .send_from(first, deadline, &self.commands, OnDrop::Retry, MAX_LATENESS)
                .await;
            record(&live, sent, lookups as u32, &answer);
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

/// Records how long the reply to so many lookups has taken, if it came at all.
fn record(live: &Live, sent: Instant, lookups: u32, answer: &Result<Answer, Failure>) {
    match answer {
        // The time is that of two connections.
        Ok(Answer { repeated: true, .. }) => {}
        Ok(_) | Err(Failure::Late) => {
            live.admission.record(sent, Outcome::Answered(lookups));
        }
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
