//! Stores whose checks are changed by a test.

use std::time::Duration;

use bytes::Bytes;
use tower_bearer_session::{
    Error, SessionStore, TokenId,
    store::{
        Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord, Updated,
        UserCursor, UserPage,
    },
};

/// How the checks of a store are changed.
pub trait Recheck<S>: Send + Sync + 'static {
    fn check(
        &self,
        store: &S,
        user_id: &str,
        token_id: &TokenId,
    ) -> impl Future<Output = Result<Option<Checked>, Error>> + Send;

    fn check_now(&self) -> Option<Result<Option<Checked>, Error>> {
        None
    }
}

/// A store with changed checks.
#[derive(Clone, Debug)]
pub struct Rechecked<S, C> {
    pub store: S,
    pub checks: C,
}

impl<S: SessionStore, C: Recheck<S>> SessionStore for Rechecked<S, C> {
    async fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        self.store.create(user_id, token_id, new, limit).await
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        self.checks.check(&self.store, user_id, token_id).await
    }

    fn check_now(&self, _: &str, _: &TokenId) -> Option<Result<Option<Checked>, Error>> {
        self.checks.check_now()
    }

    async fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        self.store.update(user_id, token_id, change).await
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        self.store.delete(user_id, token_id).await
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        self.store.delete_all(user_id, except).await
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        self.store.list(user_id).await
    }

    async fn list_users(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        self.store.list_users(after).await
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        self.store.get_user(user_id).await
    }

    async fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        self.store.put_user(user_id, value, ttl, mode).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.store.ping().await
    }
}
