//! Background tasks of a manager, in the caller's `tracing` span.

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::resume_unwind,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::{Error, ErrorKind};

/// How long a store call may continue without a waiting caller. Store calls end within a bounded time anyway; this is
/// for stores that break that rule.
pub(super) const ABANDONED_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs work in its own task, which continues if the caller is dropped, and waits for the outcome.
///
/// If the caller is dropped, then the outcome is dropped as soon as it is ready, and the work is dropped after
/// [`ABANDONED_CALL_TIMEOUT`]. Outside of a tokio runtime the work runs in the caller.
pub(super) async fn run_to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let Ok(runtime) = Handle::try_current() else {
        return work.await;
    };
    // Closed when this future is dropped.
    let (_caller, gone) = oneshot::channel();
    let work = until_abandoned(work, gone);
    match runtime.spawn(in_current_span(work)).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            // A panic propagates to the caller.
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "the tokio runtime is shutting down",
            )),
        },
    }
}

async fn until_abandoned<T>(
    work: impl Future<Output = Result<T, Error>>,
    mut gone: oneshot::Receiver<Infallible>,
) -> Result<T, Error> {
    let mut work = pin!(work);
    let finished = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => Pin::new(&mut gone).poll(context).map(|_| None),
    });
    if let Some(outcome) = finished.await {
        return outcome;
    }
    timeout(ABANDONED_CALL_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| {
            let message = "the store did not answer a call whose caller was dropped";
            Err(Error::new(ErrorKind::Timeout, message))
        })
}

/// Runs work in a detached task.
pub(super) fn spawn(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
    runtime.spawn(in_current_span(work));
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
