//! A real service on a [`RedisStore`] while its Redis, or the network to it, fails.
//!
//! While anything is wrong every request is answered: with 200, or with 503 and `Retry-After`. A live
//! token is never refused, a logged-out one never accepted, and nothing has to be started again.

mod cluster;
mod connect;
mod consistency;
mod crashes;
mod late_writes;
mod load;
mod lost_replies;
mod mysql;
mod mysql_config;
mod mysql_name;
mod network;
mod process;
mod reconnect;
mod refusals;
mod sentinel;
mod silence;
mod standalone;
mod turns;

use std::time::{Duration, Instant};

use tower_bearer_session::{Error, ErrorKind, RedisStore};

use self::load::Load;
use crate::http::{Server, app, builder};

/// How long anything may take that has to happen, on however busy a machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// A service on a store with default timings.
async fn service(url: &str) -> Server {
    let store = RedisStore::connect(url).await.expect("a store");
    serve(store).await
}

async fn serve(store: RedisStore) -> Server {
    let manager = builder(store).build().expect("a valid configuration");
    Server::axum(app(manager)).await
}

/// A store whose operations have so much time that a busy machine is no fault.
async fn patient_store(url: &str) -> RedisStore {
    let store = RedisStore::builder(url)
        .deadline(LONG_TIMEOUT)
        .connect_timeout(LONG_TIMEOUT);
    store.connect().await.expect("a store")
}

/// Waits for something to become true; tells how long it took.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) -> Duration {
    within(LONG_TIMEOUT, what, holds).await
}

/// The same for what takes its time.
async fn within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < limit, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

fn is_unavailable(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}

/// All that can be read in an error.
pub(crate) fn everything(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}
