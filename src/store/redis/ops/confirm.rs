//! Confirmation of writes by replicas.
//!
//! `WAIT` blocks its connection for all who share it, so it has a connection of its own. A *fence* precedes it: a write
//! that changes nothing, and that replicas receive after all earlier writes. Callers that arrive during a round share
//! the next one, so missing replicas cost each caller at most two timeouts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::Pipeline;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::{
    Error, ErrorKind,
    store::redis::{
        conn::{
            link::{Done, Failure, Link, OnDrop},
            link_config::LinkConfig,
            live::Live,
        },
        source::Source,
        wire::{fault::Fault, script::FENCE},
    },
};

/// How many replicas have to have a write, and how long to wait for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirm {
    pub(crate) replicas: u32,
    pub(crate) timeout: Duration,
}

/// Confirms writes of one server.
pub(crate) struct Confirmer {
    link: Link,
    config: Arc<LinkConfig>,
    /// Numbers requests and rounds in the order of their beginning.
    clock: AtomicU64,
    last: Mutex<Round>,
}

/// A `WAIT` that came back.
#[derive(Clone, Default)]
struct Round {
    began: u64,
    run_id: Option<String>,
    replicas: u32,
}

impl Confirmer {
    pub(crate) fn start(
        config: &Arc<LinkConfig>,
        source: Source,
        dialing: &Arc<Mutex<()>>,
    ) -> Self {
        let max_block = config.confirm.unwrap_or_default();
        Self {
            link: Link::start(config, source, dialing, max_block, None),
            config: Arc::clone(config),
            clock: AtomicU64::new(1),
            last: Mutex::default(),
        }
    }

    /// Waits until replicas have a write that was answered on the connection `done`, whose server should hold one of
    /// `keys`.
    pub(crate) async fn confirm(
        &self,
        wanted: Confirm,
        done: &Live,
        keys: impl Iterator<Item = String>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + wanted.timeout;
        let round = match self.round(wanted, deadline, keys).await {
            Ok(round) => round,
            Err(Failure::Deadline) => Round::default(),
            Err(failure) => {
                let message = "done, but whether replicas have it could not be found out";
                let error = self.config.error(failure);
                return Err(Error::with_source(ErrorKind::Unconfirmed, message, error));
            }
        };
        // After a failover these are the replicas of another server, which may never have seen it.
        let same = round.run_id.is_some() && round.run_id == done.connected.run_id;
        if same && round.replicas >= wanted.replicas {
            return Ok(());
        }
        let Confirm { replicas, timeout } = wanted;
        Err(Error::new(
            ErrorKind::Unconfirmed,
            format!("done, but fewer than {replicas} replicas confirmed it within {timeout:?}"),
        ))
    }

    /// A round that began after this call: one that others waited for, if it was enough.
    async fn round(
        &self,
        wanted: Confirm,
        deadline: Instant,
        keys: impl Iterator<Item = String>,
    ) -> Result<Round, Failure> {
        let came = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut last = match timeout_at(deadline, self.last.lock()).await {
            Ok(last) => last,
            Err(_) => return Err(Failure::Deadline),
        };
        if last.began < came || last.replicas < wanted.replicas {
            let mut outcome = Err(Failure::Deadline);
            for key in keys {
                outcome = self.wait(wanted, deadline, key).await;
                match &outcome {
                    Err(Failure::Redis(error)) if Fault::of(error).is_elsewhere() => {}
                    _ => break,
                }
            }
            *last = outcome?;
        }
        Ok(last.clone())
    }

    async fn wait(
        &self,
        wanted: Confirm,
        deadline: Instant,
        key: String,
    ) -> Result<Round, Failure> {
        let began = self.clock.fetch_add(1, Ordering::Relaxed);
        // What is left of the timeout, so that the server is done when we are.
        let left = deadline.saturating_duration_since(Instant::now());
        let mut commands = Pipeline::with_capacity(2);
        // It changes nothing, and so may come late.
        commands.add_command(FENCE.call(key).without_deadline());
        let wait = commands.cmd("WAIT").arg(wanted.replicas);
        wait.arg(left.as_millis().max(1) as u64);
        // Its answer has some more time, so that a connection without answers is found out.
        let deadline = deadline + self.config.deadline;
        let sent = self.link.send(deadline, &commands, OnDrop::Fail);
        let Done { reply, live, .. } = sent.await?.read::<((), u32)>()?;
        Ok(Round {
            began,
            run_id: live.connected.run_id.clone(),
            replicas: reply.1,
        })
    }
}
