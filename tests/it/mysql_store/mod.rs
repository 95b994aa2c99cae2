//! What only a MySQL store can show: its tables, its statements, and how it gets to its server.

mod clock;
mod locks;
mod migrations;
mod purge;
mod round_trips;
mod secrets;
mod user_ids;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// How long anything may take that has to happen, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something to become true.
async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
