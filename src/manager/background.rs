//! Background tasks of a manager, in the caller's `tracing` span.

use std::{
    future::poll_fn,
    panic::resume_unwind,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{AbortHandle, JoinError, JoinSet},
    time::error::Elapsed,
};

use crate::{Error, ErrorKind};

/// How long a store call may continue without a waiting caller. Store calls end within a bounded time anyway; this is
/// for stores that break that rule.
const ABANDONED_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs work in its own task, which continues if the caller is dropped, and waits for the outcome.
///
/// If the caller is dropped, then the task drops the outcome as soon as it is ready, in the caller's span. After
/// [`ABANDONED_CALL_TIMEOUT`] the work is dropped, and `report` gets the error. Outside of a tokio runtime the work
/// runs in the caller.
pub(super) async fn run_to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
    report: impl FnOnce(&Error) + Send + 'static,
) -> Result<T, Error> {
    let Ok(runtime) = Handle::try_current() else {
        return work.await;
    };
    // Closed when this future is dropped.
    let (mut done, outcome) = oneshot::channel();
    let work = async move {
        let mut work = pin!(work);
        let outcome = match until_dropped(work.as_mut(), &mut done).await {
            Some(outcome) => Ok(outcome),
            None => unless_abandoned(work).await,
        };
        match outcome {
            // Without a caller it is dropped here, in the caller's span: its drop reports events and undoes logins.
            Ok(outcome) => drop(done.send(outcome)),
            Err(error) => report(&error),
        }
    };
    let task = runtime.spawn(in_current_span(work));
    if let Ok(outcome) = outcome.await {
        return outcome;
    }
    match task.await.map_err(JoinError::try_into_panic) {
        // A panic propagates to the caller.
        Err(Ok(panic)) => resume_unwind(panic),
        _ => Err(runtime_is_gone()),
    }
}

/// Runs work until it is done, or returns `None` when the receiver of its outcome is dropped.
async fn until_dropped<T>(
    mut work: Pin<&mut impl Future<Output = T>>,
    done: &mut oneshot::Sender<T>,
) -> Option<T> {
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => done.poll_closed(context).map(|()| None),
    })
    .await
}

/// Runs a store call without a waiting caller, and fails after [`ABANDONED_CALL_TIMEOUT`].
pub(super) async fn unless_abandoned<T>(call: impl Future<Output = T>) -> Result<T, Error> {
    let outcome = timeout(ABANDONED_CALL_TIMEOUT, call).await;
    outcome.map_err(|_| abandoned())
}

/// The error of work whose runtime is shutting down.
pub(super) fn runtime_is_gone() -> Error {
    let message = "the tokio runtime is shutting down";
    Error::new(ErrorKind::Unavailable, message)
}

fn abandoned() -> Error {
    let message = "the store did not answer a call in the background in time";
    Error::new(ErrorKind::Timeout, message)
}

/// Like [`tokio::time::timeout`], but without a timer if the work is ready at once: a store in memory also works on a
/// runtime whose timers are disabled.
pub(super) async fn timeout<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let mut work = pin!(work);
    let ready = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => Poll::Ready(None),
    });
    match ready.await {
        Some(outcome) => Ok(outcome),
        None => tokio::time::timeout(limit, work).await,
    }
}

/// Runs work in a detached task.
pub(super) fn spawn(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
    runtime.spawn(in_current_span(work));
}

/// Runs work in a detached task of the current runtime.
pub(super) fn spawn_here(work: impl Future<Output = ()> + Send + 'static) {
    spawn(&Handle::current(), work);
}

/// Runs work in a set of tasks, which aborts it when the set is dropped.
pub(super) fn spawn_in<T: Send + 'static>(
    tasks: &mut JoinSet<T>,
    work: impl Future<Output = T> + Send + 'static,
) -> AbortHandle {
    tasks.spawn(in_current_span(work))
}

#[cfg(feature = "tracing")]
fn in_current_span<F: Future>(work: F) -> impl Future<Output = F::Output> {
    tracing::Instrument::in_current_span(work)
}

#[cfg(not(feature = "tracing"))]
fn in_current_span<F: Future>(work: F) -> F {
    work
}
