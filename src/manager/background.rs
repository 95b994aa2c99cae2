//! Tasks of a manager's own, in the `tracing` span of whoever causes them.

use std::panic::resume_unwind;

use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinSet},
};

use crate::{Error, ErrorKind};

/// Sees work through although its caller goes away: runs it in a task of its own, and waits for the outcome. If the
/// caller has gone away, then the outcome is dropped as soon as there is one.
///
/// Outside of a tokio runtime the caller does the work itself.
pub(super) async fn see_through<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let Ok(runtime) = Handle::try_current() else {
        return work.await;
    };
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
