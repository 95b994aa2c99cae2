use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord,
    SessionStore, Updated, UserCursor, UserPage,
};
use crate::{Error, TokenId};

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A check of a session, done or in flight.
pub(crate) enum Lookup {
    Done(Result<Option<Checked>, Error>),
    Waiting(BoxFuture<'static, Option<Checked>>),
}

impl Lookup {
    pub(crate) fn begin(store: &Arc<dyn ErasedStore>, user_id: &Arc<str>, id: TokenId) -> Self {
        match store.check_now(user_id, &id) {
            Some(checked) => Self::Done(checked),
            None => Self::ask(store, user_id, id),
        }
    }

    /// A lookup that is never answered by what the process knows.
    pub(crate) fn ask(store: &Arc<dyn ErasedStore>, user_id: &Arc<str>, id: TokenId) -> Self {
        Self::Waiting(Arc::clone(store).check(Arc::clone(user_id), id))
    }

    pub(crate) async fn wait(self) -> Result<Option<Checked>, Error> {
        match self {
            Self::Done(checked) => checked,
            Self::Waiting(check) => check.await,
        }
    }
}

/// The object-safe form of [`SessionStore`], with the same contract: no type above the stores needs a store parameter.
pub(crate) trait ErasedStore: Send + Sync {
    fn create<'a>(
        &'a self,
        user_id: &'a str,
        token_id: &'a TokenId,
        new: &'a NewSession,
        limit: Option<SessionLimit>,
    ) -> BoxFuture<'a, Created>;

    fn check_now(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Option<Result<Option<Checked>, Error>>;

    /// Takes owned arguments, so that the caller does not have to box the future again.
    fn check(
        self: Arc<Self>,
        user_id: Arc<str>,
        token_id: TokenId,
    ) -> BoxFuture<'static, Option<Checked>>;

    fn update<'a>(
        &'a self,
        user_id: &'a str,
        token_id: &'a TokenId,
        change: &'a SessionChange,
    ) -> BoxFuture<'a, Option<Updated>>;

    fn delete<'a>(&'a self, user_id: &'a str, token_id: &'a TokenId) -> BoxFuture<'a, bool>;

    fn delete_all<'a>(
        &'a self,
        user_id: &'a str,
        except: Option<&'a TokenId>,
    ) -> BoxFuture<'a, u64>;

    fn list<'a>(&'a self, user_id: &'a str) -> BoxFuture<'a, Vec<(TokenId, SessionRecord)>>;

    fn list_users<'a>(&'a self, after: Option<&'a UserCursor>) -> BoxFuture<'a, UserPage>;

    fn get_user<'a>(&'a self, user_id: &'a str) -> BoxFuture<'a, Option<Bytes>>;

    fn put_user<'a>(
        &'a self,
        user_id: &'a str,
        value: &'a [u8],
        ttl: Duration,
        mode: PutMode<'a>,
    ) -> BoxFuture<'a, bool>;

    fn changed<'a>(&'a self, user_id: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

    fn ping(&self) -> BoxFuture<'_, ()>;
}

impl<S: SessionStore> ErasedStore for S {
    fn create<'a>(
        &'a self,
        user_id: &'a str,
        token_id: &'a TokenId,
        new: &'a NewSession,
        limit: Option<SessionLimit>,
    ) -> BoxFuture<'a, Created> {
        Box::pin(SessionStore::create(self, user_id, token_id, new, limit))
    }

    fn check_now(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Option<Result<Option<Checked>, Error>> {
        SessionStore::check_now(self, user_id, token_id)
    }

    fn check(
        self: Arc<Self>,
        user_id: Arc<str>,
        token_id: TokenId,
    ) -> BoxFuture<'static, Option<Checked>> {
        Box::pin(async move { SessionStore::check(&*self, &user_id, &token_id).await })
    }

    fn update<'a>(
        &'a self,
        user_id: &'a str,
        token_id: &'a TokenId,
        change: &'a SessionChange,
    ) -> BoxFuture<'a, Option<Updated>> {
        Box::pin(SessionStore::update(self, user_id, token_id, change))
    }

    fn delete<'a>(&'a self, user_id: &'a str, token_id: &'a TokenId) -> BoxFuture<'a, bool> {
        Box::pin(SessionStore::delete(self, user_id, token_id))
    }

    fn delete_all<'a>(
        &'a self,
        user_id: &'a str,
        except: Option<&'a TokenId>,
    ) -> BoxFuture<'a, u64> {
        Box::pin(SessionStore::delete_all(self, user_id, except))
    }

    fn list<'a>(&'a self, user_id: &'a str) -> BoxFuture<'a, Vec<(TokenId, SessionRecord)>> {
        Box::pin(SessionStore::list(self, user_id))
    }

    fn list_users<'a>(&'a self, after: Option<&'a UserCursor>) -> BoxFuture<'a, UserPage> {
        Box::pin(SessionStore::list_users(self, after))
    }

    fn get_user<'a>(&'a self, user_id: &'a str) -> BoxFuture<'a, Option<Bytes>> {
        Box::pin(SessionStore::get_user(self, user_id))
    }

    fn put_user<'a>(
        &'a self,
        user_id: &'a str,
        value: &'a [u8],
        ttl: Duration,
        mode: PutMode<'a>,
    ) -> BoxFuture<'a, bool> {
        Box::pin(SessionStore::put_user(self, user_id, value, ttl, mode))
    }

    fn changed<'a>(&'a self, user_id: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(SessionStore::changed(self, user_id))
    }

    fn ping(&self) -> BoxFuture<'_, ()> {
        Box::pin(SessionStore::ping(self))
    }
}
