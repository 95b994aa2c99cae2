//! What the integration tests share: every kind of store, and a service with its clients.

// Clippy takes only test functions for tests.
#![allow(clippy::unwrap_used)]
#![allow(
    async_fn_in_trait,
    missing_debug_implementations,
    missing_docs,
    unnameable_types,
    reason = "a library only for the sake of several test targets"
)]

use std::time::{Duration, Instant};

pub use test_harness as harness;

pub mod app;
pub mod stores;

/// How long anything may take that has to happen, on however busy a machine.
pub const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for something to become true; tells how long it took.
pub async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) -> Duration {
    within(LONG_TIMEOUT, what, holds).await
}

/// The same for what takes its time.
pub async fn within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < limit, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

/// All that can be read in an error.
pub fn everything(error: &tower_bearer_session::Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}
