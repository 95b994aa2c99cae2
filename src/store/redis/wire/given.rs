//! Functions that the application has given.

use std::io;

use tokio::task::JoinSet;
use tower::BoxError;

/// Runs such a function in a task of its own, so that its panic is an error, without the text of the panic, which may
/// contain secrets. Dropping this aborts it.
pub(super) async fn run<T: Send + 'static>(
    name: &str,
    function: impl Future<Output = Result<T, BoxError>> + Send + 'static,
) -> io::Result<T> {
    let mut task = JoinSet::new();
    task.spawn(function);
    match task.join_next().await {
        Some(Ok(outcome)) => outcome.map_err(io::Error::other),
        Some(Err(error)) if error.is_panic() => {
            Err(io::Error::other(format!("{name} has panicked")))
        }
        Some(Err(_)) | None => Err(io::Error::other(format!("{name} was interrupted"))),
    }
}
