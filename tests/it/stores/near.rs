//! [`RedisStore`] with a near-cache.

use std::time::Duration;

use bytes::Bytes;
use tower_bearer_session::{
    Error, NearCache, RedisStore, SessionStore, TokenId,
    store::{
        Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord, Updated,
        UserCursor, UserPage,
    },
    test_util,
};

use super::{Backend, connect};
use crate::harness::{Flavor, RedisServer};

/// One server, and stores whose near-cache answers the checks that it can.
pub(crate) struct Near(RedisServer);

/// The same with announcements per key.
pub(crate) struct NearPerKey(RedisServer);

/// A store that answers a check by its near-cache if that has an answer.
///
/// So that an answer is not older than the check, another one comes before: when that is answered, everything has been
/// announced on the connection that was acknowledged before. The rules of stores hold without exception then.
#[derive(Clone, Debug)]
pub(crate) struct HitsFirst(RedisStore);

async fn hits_first(server: &RedisServer, near: NearCache) -> HitsFirst {
    // A busy machine must not keep the cache from being used.
    let near = near.max_staleness(Duration::from_secs(10));
    HitsFirst(connect(RedisStore::builder(server.url()).near_cache(near)).await)
}

impl Backend for Near {
    async fn start() -> Self {
        Self(RedisServer::start(Flavor::Redis).await)
    }
}

impl test_util::Backend for Near {
    type Store = HitsFirst;

    async fn store(&self) -> HitsFirst {
        hits_first(&self.0, NearCache::new()).await
    }
}

impl Backend for NearPerKey {
    async fn start() -> Self {
        Self(RedisServer::start(Flavor::Valkey).await)
    }
}

impl test_util::Backend for NearPerKey {
    type Store = HitsFirst;

    async fn store(&self) -> HitsFirst {
        hits_first(&self.0, NearCache::new().per_key()).await
    }
}

impl SessionStore for HitsFirst {
    async fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        self.0.create(user_id, token_id, new, limit).await
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        self.0.check("nobody", token_id).await?;
        match self.0.check_now(user_id, token_id) {
            Some(checked) => checked,
            None => self.0.check(user_id, token_id).await,
        }
    }

    async fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        self.0.update(user_id, token_id, change).await
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        self.0.delete(user_id, token_id).await
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        self.0.delete_all(user_id, except).await
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        self.0.list(user_id).await
    }

    async fn list_users(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        self.0.list_users(after).await
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        self.0.get_user(user_id).await
    }

    async fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        self.0.put_user(user_id, value, ttl, mode).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.0.ping().await
    }
}
