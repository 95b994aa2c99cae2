//! A real service on a [`RedisStore`] while its Redis, or the network to it, fails.
//!
//! While anything is wrong every request is answered: with 200, or with 503 and `Retry-After`. A live
//! token is never refused, a logged-out one never accepted, and nothing has to be started again.

// Clippy takes only test functions for tests.
#![allow(clippy::unwrap_used)]

mod cluster;
mod connect;
mod consistency;
mod crashes;
mod late_writes;
mod load;
mod load_shedding;
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

use tower_bearer_session::{Error, ErrorKind, RedisStore};

use support::{
    LONG_TIMEOUT,
    app::{Server, app, builder},
    eventually, everything, harness, stores, within,
};

use self::load::Load;

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

fn is_unavailable(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}
