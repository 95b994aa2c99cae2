//! Tasks, of which each runs in the thread that spawns it.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, Waker},
};

loom::thread_local! {
    /// After how many polls a task of this thread is dropped.
    static POLLS: Cell<usize> = Cell::new(usize::MAX);
}

/// Runs a task before the caller goes on, who would only wait for it.
pub(super) fn spawn_here(work: impl Future<Output = ()>) {
    poll(work, POLLS.with(Cell::get));
}

/// Lets what this thread spawns be dropped after so many polls, as when a runtime shuts down, or the task panics.
pub(super) fn drop_tasks_after(polls: usize) {
    POLLS.with(|left| left.set(polls));
}

/// Runs work to its end.
pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    poll(work, usize::MAX).expect("an end")
}

/// Where a task may be dropped.
pub(super) async fn step() {
    let mut is_second = false;
    poll_fn(|_| {
        let poll = if is_second {
            Poll::Ready(())
        } else {
            Poll::Pending
        };
        is_second = true;
        poll
    })
    .await;
}

fn poll<T>(work: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    (0..polls).find_map(|_| match work.as_mut().poll(&mut context) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}
