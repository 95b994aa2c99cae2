//! [`RedisStore`] with a near-cache.

use std::time::Duration;

use tower_bearer_session::{
    Error, NearCache, RedisStore, SessionStore, TokenId, store::Checked, test_util,
};

use super::{Backend, Recheck, Rechecked, connect};
use test_harness::{Flavor, RedisServer};

/// One server, and stores whose near-cache answers the checks that it can.
pub struct Near(RedisServer);

/// The same with announcements per key.
pub struct NearPerKey(RedisServer);

/// Checks that are answered by the near-cache if that has an answer.
///
/// So that an answer is not older than the check, another one comes before: when that is answered, everything has been
/// announced on the connection that was acknowledged before. The rules of stores hold without exception then.
#[derive(Clone, Debug)]
pub struct HitsFirst;

async fn hits_first(server: &RedisServer, near: NearCache) -> Rechecked<RedisStore, HitsFirst> {
    // A busy machine must not keep the cache from being used.
    let near = near.max_staleness(Duration::from_secs(10));
    let store = connect(RedisStore::builder(server.url()).near_cache(near)).await;
    let checks = HitsFirst;
    Rechecked { store, checks }
}

impl Backend for Near {
    async fn start() -> Self {
        Self(RedisServer::start(Flavor::Redis).await)
    }
}

impl test_util::Backend for Near {
    type Store = Rechecked<RedisStore, HitsFirst>;

    async fn store(&self) -> Self::Store {
        hits_first(&self.0, NearCache::new()).await
    }
}

impl Backend for NearPerKey {
    async fn start() -> Self {
        Self(RedisServer::start(Flavor::Valkey).await)
    }
}

impl test_util::Backend for NearPerKey {
    type Store = Rechecked<RedisStore, HitsFirst>;

    async fn store(&self) -> Self::Store {
        hits_first(&self.0, NearCache::new().per_key()).await
    }
}

impl Recheck<RedisStore> for HitsFirst {
    async fn check(
        &self,
        store: &RedisStore,
        user_id: &str,
        token_id: &TokenId,
    ) -> Result<Option<Checked>, Error> {
        store.check("nobody", token_id).await?;
        match store.check_now(user_id, token_id) {
            Some(checked) => checked,
            None => store.check(user_id, token_id).await,
        }
    }
}
