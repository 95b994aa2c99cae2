use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use tower_bearer_session::{
    Error, SessionStore, TokenId,
    store::{
        Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord, Updated,
        UserCursor, UserPage,
    },
};

/// A store whose checks do not find cached users, as if they had looked a moment earlier.
pub(super) struct CacheMisses<S> {
    store: S,
    missing: Arc<AtomicBool>,
}

impl<S> CacheMisses<S> {
    pub(super) fn new(store: S) -> Self {
        Self {
            store,
            missing: Arc::new(AtomicBool::new(true)),
        }
    }

    /// The switch: `true` while checks miss.
    pub(super) fn missing(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.missing)
    }
}

impl<S: SessionStore> SessionStore for CacheMisses<S> {
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
        let mut checked = self.store.check(user_id, token_id).await?;
        if let Some(checked) = &mut checked
            && self.missing.load(SeqCst)
        {
            checked.user = None;
        }
        Ok(checked)
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
