//! Undoing writes whose token does not reach the caller.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use super::background::unless_abandoned;
use crate::{Error, jitter};

/// The maximum number of undos in flight of each kind.
const MAX_UNDOS: usize = 1024;
/// The maximum number of attempts to undo a write.
const UNDO_ATTEMPTS: u32 = 5;
/// The backoff after the first attempt, without jitter; each further backoff is four times as long.
const UNDO_PAUSE: Duration = Duration::from_millis(70);

/// The permits of a manager for undos in flight.
///
/// An error does not tell whether the store got the call, so every login that fails is undone. In an outage these fill
/// their places for as long as their attempts last; the sessions that are known to have started have places of their
/// own.
pub(super) struct Undos {
    started: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
}

impl Undos {
    pub(super) fn new() -> Self {
        Self {
            started: Arc::new(Semaphore::new(MAX_UNDOS)),
            unknown: Arc::new(Semaphore::new(MAX_UNDOS)),
        }
    }

    /// A permit to undo a write that is known to be done, or may be done; `None` if too many are being undone.
    pub(super) fn permit(&self, is_done: bool) -> Option<OwnedSemaphorePermit> {
        let undos = if is_done {
            &self.started
        } else {
            &self.unknown
        };
        Arc::clone(undos).try_acquire_owned().ok()
    }
}

/// Calls a store until it answers, with backoffs, or returns `None` if all attempts fail. The store has reported its
/// errors; `report` gets those of abandoned calls.
pub(super) async fn until_undone<T, F: Future<Output = Result<T, Error>>>(
    call: impl Fn() -> F,
    report: impl Fn(&Error),
) -> Option<T> {
    let mut pause = UNDO_PAUSE;
    for attempt in 1..=UNDO_ATTEMPTS {
        let attempting = async {
            match unless_abandoned(call()).await {
                Ok(outcome) => outcome.ok(),
                Err(abandoned) => {
                    report(&abandoned);
                    None
                }
            }
        };
        if let Some(answer) = unless_panicked(attempting).await {
            return Some(answer);
        }
        if attempt < UNDO_ATTEMPTS {
            sleep(pause + jitter::up_to(pause)).await;
            pause *= 4;
        }
    }
    None
}

/// The outcome of an attempt; `None` if a hook that hears of its failure panics, which must not end the undo.
async fn unless_panicked<T>(attempt: impl Future<Output = Option<T>>) -> Option<T> {
    let mut attempt = pin!(attempt);
    poll_fn(|cx| {
        let polling = AssertUnwindSafe(|| attempt.as_mut().poll(cx));
        catch_unwind(polling).unwrap_or(Poll::Ready(None))
    })
    .await
}

/// A write that can be undone.
pub(super) trait Undo: Clone {
    /// Undoes the write in the background. `is_done` tells whether it is known to be done.
    fn undo(self, runtime: &Handle, is_done: bool);
}

/// Undoes a write on drop, unless it is settled.
pub(super) struct UndoOnDrop<W: Undo> {
    pub(super) write: W,
    pub(super) fate: Fate,
    /// `None` outside of a runtime, where the write runs in the caller.
    runtime: Option<Handle>,
}

/// What is known about a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Unknown,
    Done,
    /// It was refused, or the caller gets its token.
    Settled,
}

impl<W: Undo> UndoOnDrop<W> {
    pub(super) fn new(write: W) -> Self {
        Self {
            write,
            fate: Fate::Unknown,
            runtime: Handle::try_current().ok(),
        }
    }

    /// Settles a write that was refused; a fault leaves its fate unknown.
    pub(super) fn failed(&mut self, error: &Error) {
        if !error.is_fault() {
            self.fate = Fate::Settled;
        }
    }
}

impl<W: Undo> Drop for UndoOnDrop<W> {
    fn drop(&mut self) {
        if let Some(runtime) = &self.runtime
            && self.fate != Fate::Settled
        {
            self.write.clone().undo(runtime, self.fate == Fate::Done);
        }
    }
}
