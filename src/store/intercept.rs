use std::{pin::pin, time::Duration};

use bytes::Bytes;

use super::{
    Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord, SessionStore,
};
use crate::{Error, TokenId};

/// Intercepts every call of a store, for example to measure, log, delay or fail it.
///
/// ```
/// use std::{sync::atomic::{AtomicU64, Ordering}, time::Instant};
/// use tower_bearer_session::{Error, MemoryStore, TokenManager};
/// use tower_bearer_session::store::{InterceptedStore, Operation, StoreInterceptor};
///
/// #[derive(Default)]
/// struct Latency { micros: AtomicU64 }
///
/// impl StoreInterceptor for Latency {
///     async fn intercept<T: Send>(
///         &self,
///         _: Operation<'_>,
///         call: impl Future<Output = Result<T, Error>> + Send,
///     ) -> Result<T, Error> {
///         let start = Instant::now();
///         let outcome = call.await;
///         self.micros.fetch_add(start.elapsed().as_micros() as u64, Ordering::Relaxed);
///         outcome
///     }
/// }
///
/// let manager: TokenManager = TokenManager::new(InterceptedStore::new(MemoryStore::new(), Latency::default()));
/// # let _ = manager;
/// ```
pub trait StoreInterceptor: Send + Sync + 'static {
    /// Intercepts one call, and makes it or not.
    fn intercept<T: Send>(
        &self,
        operation: Operation<'_>,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> impl Future<Output = Result<T, Error>> + Send;

    /// The same for [`check_now`](SessionStore::check_now). `None`, as by default, without making the call: then it
    /// will be one that waits.
    fn intercept_now<T>(
        &self,
        operation: Operation<'_>,
        call: impl FnOnce() -> Option<Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let _ = (operation, call);
        None
    }
}

/// An operation of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation<'a> {
    /// The name of the called [`SessionStore`] method.
    pub name: &'static str,
    /// The user of the operation; `None` for an operation on the store as a whole.
    pub user_id: Option<&'a str>,
    /// The session of the operation; `None` for an operation on all sessions of a user, or on none.
    pub token_id: Option<&'a TokenId>,
}

/// A store whose calls go through an interceptor.
#[derive(Clone, Debug)]
pub struct InterceptedStore<S, A> {
    store: S,
    interceptor: A,
}

impl<S, A> InterceptedStore<S, A> {
    /// Wraps `store`, so that its calls go through `interceptor`.
    pub fn new(store: S, interceptor: A) -> Self {
        Self { store, interceptor }
    }

    /// Returns the inner store.
    pub fn store(&self) -> &S {
        &self.store
    }
}

// An interceptor gets a pinned reference to the call: moving the future of a call would copy all that it may ever hold.
impl<S: SessionStore, A: StoreInterceptor> SessionStore for InterceptedStore<S, A> {
    async fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        let call = pin!(self.store.create(user_id, token_id, new, limit));
        self.interceptor
            .intercept(of_session("create", user_id, token_id), call)
            .await
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        let call = pin!(self.store.check(user_id, token_id));
        self.interceptor
            .intercept(of_session("check", user_id, token_id), call)
            .await
    }

    fn check_now(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Option<Result<Option<Checked>, Error>> {
        let call = || self.store.check_now(user_id, token_id);
        self.interceptor
            .intercept_now(of_session("check", user_id, token_id), call)
    }

    async fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<bool, Error> {
        let call = pin!(self.store.update(user_id, token_id, change));
        self.interceptor
            .intercept(of_session("update", user_id, token_id), call)
            .await
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        let call = pin!(self.store.delete(user_id, token_id));
        self.interceptor
            .intercept(of_session("delete", user_id, token_id), call)
            .await
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        let call = pin!(self.store.delete_all(user_id, except));
        self.interceptor
            .intercept(of_user("delete_all", user_id), call)
            .await
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let call = pin!(self.store.list(user_id));
        self.interceptor
            .intercept(of_user("list", user_id), call)
            .await
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        let call = pin!(self.store.get_user(user_id));
        self.interceptor
            .intercept(of_user("get_user", user_id), call)
            .await
    }

    async fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        let call = pin!(self.store.put_user(user_id, value, ttl, mode));
        self.interceptor
            .intercept(of_user("put_user", user_id), call)
            .await
    }

    async fn ping(&self) -> Result<(), Error> {
        let ping = Operation {
            name: "ping",
            user_id: None,
            token_id: None,
        };
        self.interceptor
            .intercept(ping, pin!(self.store.ping()))
            .await
    }
}

fn of_session<'a>(name: &'static str, user_id: &'a str, token_id: &'a TokenId) -> Operation<'a> {
    Operation {
        token_id: Some(token_id),
        ..of_user(name, user_id)
    }
}

fn of_user<'a>(name: &'static str, user_id: &'a str) -> Operation<'a> {
    Operation {
        name,
        user_id: Some(user_id),
        token_id: None,
    }
}
