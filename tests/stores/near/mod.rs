//! The near-cache of a [`RedisStore`]: what it saves, and how long it may be wrong.

mod allocations;
mod expiry;
mod faults;
mod history;
mod hits;
mod orders;
mod reconnections;
mod rights;
mod streams;
mod takeovers;
mod topologies;

use std::time::Duration;

use tower_bearer_session::{NearCache, RedisStore, SessionStore, TokenId};

use crate::{harness::RedisServer, stores::patient};

/// How long anything may take that has to happen, on however busy a machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// A store with a near-cache, and connections that stay.
async fn near_store(server: &RedisServer, near: NearCache) -> RedisStore {
    let builder = patient(RedisStore::builder(server.url()));
    builder.near_cache(near).connect().await.unwrap()
}

/// A near-cache that a busy machine does not keep from being used.
fn lasting() -> NearCache {
    NearCache::new().max_staleness(Duration::from_secs(10))
}

/// Whether the near-cache says that a session is live.
fn is_hit(store: &RedisStore, user_id: &str, token_id: &TokenId) -> bool {
    let checked = store.check_now(user_id, token_id);
    checked.is_some_and(|checked| checked.unwrap().is_some())
}

/// Checks a live session until the near-cache has it.
async fn warm(store: &RedisStore, user_id: &str, token_id: &TokenId) {
    let warming = async {
        while !is_hit(store, user_id, token_id) {
            // An outage may be passing.
            let _ = store.check(user_id, token_id).await;
            tokio::task::yield_now().await;
        }
    };
    let warming = tokio::time::timeout(LONG_TIMEOUT, warming).await;
    warming.expect("a hit");
}
