//! Tasks of a manager's own, in the `tracing` span of whoever causes them.

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

/// How long a call of the store may go on for which nobody waits. All calls of a store end within a bounded time; this
/// is for stores that break that rule.
pub(super) const GIVE_UP: Duration = Duration::from_secs(60);

/// Sees work through although its caller goes away: runs it in a task of its own, and waits for the outcome. If the
/// caller has gone away, then the outcome is dropped as soon as there is one, and the work after [`GIVE_UP`].
///
/// Outside of a tokio runtime the caller does the work itself.
pub(super) async fn see_through<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let Ok(runtime) = Handle::try_current() else {
        return work.await;
    };
    // Closed when this future is dropped.
    let (_caller, gone) = oneshot::channel();
    let work = until_given_up(work, gone);
    match runtime.spawn(in_current_span(work)).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            // A panic is for our caller.
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "the tokio runtime is shutting down",
            )),
        },
    }
}

async fn until_given_up<T>(
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
    timeout(GIVE_UP, work).await.unwrap_or_else(|_| {
        let message = "the store did not answer, and nobody waits for it any more";
        Err(Error::new(ErrorKind::Timeout, message))
    })
}

/// Runs work that nobody waits for.
pub(super) fn spawn(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
    runtime.spawn(in_current_span(work));
}

/// Runs work in a set of tasks, which ends when the set is dropped.
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
