use std::{fmt, pin::pin, time::Duration};

use bytes::Bytes;

use super::{
    Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord,
    SessionStore, Updated, UserCursor, UserPage,
};
use crate::{Error, TokenId};

/// Intercepts every call of a store, for example to measure, log, delay or fail it.
///
/// ```
/// use std::{sync::atomic::{AtomicU64, Ordering}, time::Instant};
/// use tower_bearer_session::{Error, MemoryStore, TokenManager};
/// use tower_bearer_session::store::{InterceptedStore, StoreCall, StoreInterceptor};
///
/// #[derive(Default)]
/// struct Latency { micros: AtomicU64 }
///
/// impl StoreInterceptor for Latency {
///     async fn intercept<T: Send>(
///         &self,
///         _: StoreCall<'_>,
///         answer: impl Future<Output = Result<T, Error>> + Send,
///     ) -> Result<T, Error> {
///         let start = Instant::now();
///         let outcome = answer.await;
///         self.micros.fetch_add(start.elapsed().as_micros() as u64, Ordering::Relaxed);
///         outcome
///     }
/// }
///
/// let manager: TokenManager = TokenManager::new(InterceptedStore::new(MemoryStore::new(), Latency::default()));
/// # let _ = manager;
/// ```
pub trait StoreInterceptor: Send + Sync + 'static {
    /// Intercepts one call. To make the call is to await `answer`.
    fn intercept<T: Send>(
        &self,
        call: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> impl Future<Output = Result<T, Error>> + Send;

    /// Intercepts a call of [`check_now`](SessionStore::check_now).
    ///
    /// By default, `None` without making the call: [`check`](SessionStore::check) is called instead.
    fn intercept_now<T>(
        &self,
        call: StoreCall<'_>,
        answer: impl FnOnce() -> Option<Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let _ = (call, answer);
        None
    }
}

/// A call of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCall<'a> {
    /// The called method.
    pub operation: Operation,
    /// The user of the call; `None` for a call on the store as a whole.
    pub user_id: Option<&'a str>,
    /// The session of the call; `None` for a call on all sessions of a user, or on none.
    pub token_id: Option<&'a TokenId>,
}

/// A method of [`SessionStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`SessionStore::create`].
    Create,
    /// [`SessionStore::check`], and [`check_now`](SessionStore::check_now).
    Check,
    /// [`SessionStore::update`], and [`refresh`](SessionStore::refresh).
    Update,
    /// [`SessionStore::delete`].
    Delete,
    /// [`SessionStore::delete_all`].
    DeleteAll,
    /// [`SessionStore::list`].
    List,
    /// [`SessionStore::list_users`].
    ListUsers,
    /// [`SessionStore::get_user`].
    GetUser,
    /// [`SessionStore::put_user`].
    PutUser,
    /// [`SessionStore::ping`].
    Ping,
}

impl Operation {
    /// The name of the method, such as `delete_all`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Check => "check",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::DeleteAll => "delete_all",
            Self::List => "list",
            Self::ListUsers => "list_users",
            Self::GetUser => "get_user",
            Self::PutUser => "put_user",
            Self::Ping => "ping",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
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
        let answer = pin!(self.store.create(user_id, token_id, new, limit));
        self.interceptor
            .intercept(of_session(Operation::Create, user_id, token_id), answer)
            .await
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        let answer = pin!(self.store.check(user_id, token_id));
        self.interceptor
            .intercept(of_session(Operation::Check, user_id, token_id), answer)
            .await
    }

    fn check_now(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Option<Result<Option<Checked>, Error>> {
        let answer = || self.store.check_now(user_id, token_id);
        self.interceptor
            .intercept_now(of_session(Operation::Check, user_id, token_id), answer)
    }

    async fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        let answer = pin!(self.store.update(user_id, token_id, change));
        self.interceptor
            .intercept(of_session(Operation::Update, user_id, token_id), answer)
            .await
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        let answer = pin!(self.store.delete(user_id, token_id));
        self.interceptor
            .intercept(of_session(Operation::Delete, user_id, token_id), answer)
            .await
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        let answer = pin!(self.store.delete_all(user_id, except));
        self.interceptor
            .intercept(of_user(Operation::DeleteAll, user_id), answer)
            .await
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let answer = pin!(self.store.list(user_id));
        self.interceptor
            .intercept(of_user(Operation::List, user_id), answer)
            .await
    }

    async fn list_users(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        let answer = pin!(self.store.list_users(after));
        self.interceptor
            .intercept(of_store(Operation::ListUsers), answer)
            .await
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        let answer = pin!(self.store.get_user(user_id));
        self.interceptor
            .intercept(of_user(Operation::GetUser, user_id), answer)
            .await
    }

    async fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        let answer = pin!(self.store.put_user(user_id, value, ttl, mode));
        self.interceptor
            .intercept(of_user(Operation::PutUser, user_id), answer)
            .await
    }

    /// It is not intercepted: it calls no server, and its end is no outcome.
    fn changed(&self, user_id: &str) -> impl Future<Output = ()> + Send {
        self.store.changed(user_id)
    }

    async fn ping(&self) -> Result<(), Error> {
        let answer = pin!(self.store.ping());
        self.interceptor
            .intercept(of_store(Operation::Ping), answer)
            .await
    }
}

fn of_session<'a>(operation: Operation, user_id: &'a str, token_id: &'a TokenId) -> StoreCall<'a> {
    StoreCall {
        token_id: Some(token_id),
        ..of_user(operation, user_id)
    }
}

fn of_user(operation: Operation, user_id: &str) -> StoreCall<'_> {
    StoreCall {
        user_id: Some(user_id),
        ..of_store(operation)
    }
}

fn of_store(operation: Operation) -> StoreCall<'static> {
    StoreCall {
        operation,
        user_id: None,
        token_id: None,
    }
}
