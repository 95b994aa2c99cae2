//! Which lookups share a pipeline, and when it is sent. What they are, and how they are sent, is up to the caller.

use std::{future::poll_fn, mem, task::Poll, time::Duration};

use tokio::time::Instant;

use crate::sync::{Mutex, lock};

/// What a batch holds before it is sent, whether or not its turn has come.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// The number of lookups.
    pub(super) lookups: usize,
    /// The length of the keys, in bytes. The last lookup may exceed it.
    pub(super) bytes: usize,
    /// The age, by the deadlines of the first and the last lookup.
    pub(super) age: Duration,
}

/// Lookups that share a pipeline: those who wait for a reply, in the order of their commands.
pub(super) struct Batch<C, W> {
    pub(super) commands: C,
    pub(super) waiting: Vec<W>,
    bytes: usize,
    first_deadline: Instant,
    pub(super) last_deadline: Instant,
}

/// The batch that is sent next, if there is any lookup in it.
pub(super) struct NextBatch<C, W> {
    limits: Limits,
    batch: Mutex<Option<Batch<C, W>>>,
}

/// What the caller has to do with a batch after it has added a lookup.
pub(super) enum Todo<C, W> {
    /// Others do it.
    Nothing,
    /// Spawn a [`Turn`] to take it.
    Turn,
    /// Send it: it is full or old. A turn that was meant for it takes a later one, or nothing.
    Send(Batch<C, W>),
}

/// A turn to take a batch. It comes when all tasks that are ready have run once. Dropped earlier, it takes the batch and
/// drops it, so that those who wait learn that there will be no reply.
pub(super) struct Turn<T, F: FnOnce() -> Option<T>>(Option<F>);

impl<C: Default, W> NextBatch<C, W> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            batch: Mutex::new(None),
        }
    }

    /// Adds a lookup, whose keys have so many `bytes`.
    pub(super) fn add(
        &self,
        deadline: Instant,
        bytes: usize,
        waiting: W,
        add_commands: impl FnOnce(&mut C),
    ) -> Todo<C, W> {
        let mut next = lock(&self.batch);
        let batch = next.get_or_insert_with(|| Batch {
            commands: C::default(),
            waiting: Vec::new(),
            bytes: 0,
            first_deadline: deadline,
            last_deadline: deadline,
        });
        add_commands(&mut batch.commands);
        batch.waiting.push(waiting);
        batch.bytes += bytes;
        batch.last_deadline = batch.last_deadline.max(deadline);
        let lookups = batch.waiting.len();
        let is_full = lookups >= self.limits.lookups || batch.bytes >= self.limits.bytes;
        if is_full || deadline > batch.first_deadline + self.limits.age {
            next.take().map_or(Todo::Nothing, Todo::Send)
        } else if lookups == 1 {
            Todo::Turn
        } else {
            Todo::Nothing
        }
    }

    pub(super) fn take(&self) -> Option<Batch<C, W>> {
        lock(&self.batch).take()
    }
}

impl<T, F: FnOnce() -> Option<T>> Turn<T, F> {
    pub(super) fn new(take: F) -> Self {
        Self(Some(take))
    }

    /// Takes what there is when the turn has come.
    pub(super) async fn come(mut self) -> Option<T> {
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
        self.0.take().and_then(|take| take())
    }
}

impl<T, F: FnOnce() -> Option<T>> Drop for Turn<T, F> {
    fn drop(&mut self) {
        if let Some(take) = self.0.take() {
            // What waited in it fails.
            drop(take());
        }
    }
}
