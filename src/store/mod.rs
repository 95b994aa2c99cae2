//! Session storage: the [`SessionStore`] contract and its implementations.
//!
//! | store | for | feature |
//! |---|---|---|
//! | [`MemoryStore`] | one process, tests, development | always there |
#![cfg_attr(
    feature = "redis",
    doc = "| [`RedisStore`] | any number of services over Redis or Valkey: one server, Sentinel or Cluster | `redis` |"
)]
#![cfg_attr(
    feature = "mysql",
    doc = "| [`MySqlStore`] | any number of services over MySQL or MariaDB | `mysql` |"
)]
//!
//! A store handles user ids, [token ids](TokenId), durations and opaque bytes. It sees no tokens, no user type and no
//! HTTP. Applications use a store through a [`TokenManager`](crate::TokenManager); only the author of another store
//! needs this module.

use std::time::Duration;

use bytes::Bytes;

use crate::{Error, TokenId};

pub(crate) use self::erased::{BoxFuture, ErasedStore, Lookup};
#[cfg(feature = "mysql")]
#[cfg_attr(docsrs, doc(cfg(feature = "mysql")))]
pub use self::mysql::{MySqlStore, MySqlStoreBuilder};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::{
    NearCache, NearCacheHealth, RedisCredentials, RedisHealth, RedisPrimary, RedisStore,
    RedisStoreBuilder, RedisTopology,
};
pub use self::{
    cached_user::CachedUser,
    intercept::{InterceptedStore, Operation, StoreCall, StoreInterceptor},
    memory::MemoryStore,
    rotation::{NewToken, ReplacedToken, Rotation, TokenStatus},
    types::{
        Checked, Created, NewSession, OnFull, PutMode, SessionChange, SessionLimit, SessionRecord,
        SessionVersion, Updated,
    },
    users::{UserCursor, UserPage},
};

#[cfg(any(feature = "mysql", feature = "redis"))]
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "what only Redis needs")
)]
pub(crate) mod admission;
mod cached_user;
#[cfg(any(feature = "mysql", feature = "redis"))]
mod config;
mod erased;
mod intercept;
mod memory;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
mod pointers;
mod record;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod rotation;
mod types;
mod users;

/// The maximum time to live of sessions and cached users: 100 years of 365 days.
pub const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The maximum size of a cached value, and of the metadata of a session: 1 MiB.
pub const MAX_VALUE_LEN: usize = 1024 * 1024;

/// A store of sessions and cached users: the contract between a [`TokenManager`](crate::TokenManager) and its storage.
///
/// A session is identified by a user id (1 to 255 bytes of UTF-8) and the [`TokenId`] of its first token, which it
/// keeps when that token is replaced. Durations are 1 ms to [`MAX_TTL`], in whole milliseconds. A session is **live**
/// from its creation until it expires, by the store's own clock, or is deleted. To every method, an expired or deleted
/// session is the same as one that never existed.
///
/// All methods are *linearizable* per user unless they say otherwise: each takes effect at one moment between its call
/// and its return. Once a [`delete`](Self::delete) or [`delete_all`](Self::delete_all) has returned, no check anywhere
/// finds the sessions that it removed, whatever else is in flight.
///
/// After an error, a write may or may not have taken effect, but it **does not take effect later**: no write takes
/// effect once its call has returned. Repeating a write is safe. A store may retry a write after the reply to the first
/// attempt was lost, but only when the first attempt can no longer take effect: a late logout of all sessions would end
/// a newer login. It must not retry a [`create`](Self::create) that may have taken effect: a session that has been
/// logged out since then would come back.
///
/// Limits are at most [`SessionLimit::MAX`], and cached values and metadata have at most [`MAX_VALUE_LEN`] bytes. For
/// more, a store may answer [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
///
/// Every call ends within a bounded time, whatever becomes of the servers: a store has deadlines of its own. A manager
/// abandons a call 60 seconds after its caller has dropped it, and otherwise waits without a limit.
///
/// Implementations can use plain `async fn`s. Errors are faults, of the kinds
/// [`Unavailable`](crate::ErrorKind::Unavailable), [`Timeout`](crate::ErrorKind::Timeout),
/// [`Unconfirmed`](crate::ErrorKind::Unconfirmed) and [`Store`](crate::ErrorKind::Store); or
/// [`Config`](crate::ErrorKind::Config) if the store is not set up, [`SessionLimit`](crate::ErrorKind::SessionLimit)
/// from `create`, and `InvalidInput` as above.
///
/// `store_conformance_tests!` (feature `test-util`) has a test for each rule of this contract. An
/// [`Arc`](std::sync::Arc) or [`Box`] of a store is a store, too.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a session store",
    label = "not a session store",
    note = "pass a `MemoryStore`, a `RedisStore` or a `MySqlStore`, or implement `SessionStore`"
)]
pub trait SessionStore: Send + Sync + 'static {
    /// Starts a session, unless it is live already, and keeps the user's limit.
    ///
    /// Insertion and limit are **one atomic step**: under any number of concurrent logins no user ever has more than
    /// `limit.max` live sessions. Repeating the call for a live session changes nothing and returns that session. If
    /// more sessions are live than any limit allows, because the limit is new, a store may end most of those in excess
    /// before that step, in several ones.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SessionLimit`](crate::ErrorKind::SessionLimit) if the user is at the limit and `limit.on_full` is
    /// [`OnFull::Reject`]; the call has changed nothing then.
    fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> impl Future<Output = Result<Created, Error>> + Send;

    /// Looks up a session and the user's cached value, in **one round trip** and without a write.
    ///
    /// `None` if the session is not live. A session whose record cannot be decoded is not live; one that only a newer
    /// version of the store [can interpret](SessionRecord::is_opaque) is a fault. The session and the cached value need
    /// not be from the same moment.
    fn check(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> impl Future<Output = Result<Option<Checked>, Error>> + Send;

    /// Answers a [`check`](Self::check) at once, or returns `None` (the default) if the answer takes waiting.
    ///
    /// It saves stores in memory a future for each request. It must neither block nor panic. `None` is always correct.
    ///
    /// Unlike `check`, it may answer as of an earlier moment, if the documentation of the store says so and bounds the
    /// age; but not as of one before a write for the same user that was made through this store, or a clone of it, and
    /// has returned.
    ///
    /// A store that wraps another one and changes [`check`](Self::check) must change this method, too, or return
    /// `None`.
    fn check_now(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Option<Result<Option<Checked>, Error>> {
        let _ = (user_id, token_id);
        None
    }

    /// Changes a live session if the conditions in `change` hold, in **one atomic step**.
    ///
    /// `None` if the session is not live or a condition does not hold; the call has changed nothing then. An update
    /// never revives or creates a session, and never moves its expiry past its [`ends_at`](SessionRecord::ends_at).
    ///
    /// A [new token](SessionChange::new_token) replaces the current one; the session itself stays, with its id. Nothing
    /// but [`Rotation`] tells the tokens of a session apart: `token_id` is always that of its first token, and a check
    /// finds the session whichever token the client has presented. If the session has the new token already, the call
    /// changes nothing of it, whatever the conditions, and succeeds: so repeating it is safe.
    ///
    /// With a condition but no new token, `None` can also mean that the store retried the update after the reply to the
    /// first attempt was lost, and that the first attempt took effect.
    fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> impl Future<Output = Result<Option<Updated>, Error>> + Send;

    /// Sets the expiry of a live session to `ttl` from now, by an [`update`](Self::update) without a condition.
    ///
    /// Returns `false` if no such session is live.
    fn refresh(
        &self,
        user_id: &str,
        token_id: &TokenId,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        async move {
            let change = SessionChange::refresh(ttl);
            Ok(self.update(user_id, token_id, &change).await?.is_some())
        }
    }

    /// Ends a session.
    ///
    /// Returns `true` if this call ended a live session, or may have: a store that repeats the call after the reply to
    /// the first try was lost, and then finds no session, cannot tell.
    fn delete(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Ends all sessions of a user, except `except`, in **one atomic step**.
    ///
    /// After the call has returned, no session that was created before the call is live, other than `except`. That
    /// session is kept only if it is live; it is never created.
    ///
    /// Returns the number of removed sessions, which may include sessions that had expired but were not freed yet. The
    /// number may be at least 1 if the store retried after the reply to the first attempt was lost.
    fn delete_all(
        &self,
        user_id: &str,
        except: Option<&TokenId>,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Lists the live sessions of a user, oldest first.
    ///
    /// The list is not atomic: large results may be read in pages. It contains each session that was live during the
    /// whole call, once. It may contain sessions that started or ended meanwhile. It omits records that cannot be
    /// decoded.
    fn list(
        &self,
        user_id: &str,
    ) -> impl Future<Output = Result<Vec<(TokenId, SessionRecord)>, Error>> + Send;

    /// Lists the users who have sessions, a page at a time: the first page, or the one that begins at `after`, the
    /// [`next`](UserPage::next) of another page.
    ///
    /// All pages of a listing together contain each user who had a live session during the whole listing, at least
    /// once. They may contain users whose sessions started or ended meanwhile, and users whose sessions have all ended
    /// but are not freed yet. A user with only a cached value is not listed. The order is not specified.
    ///
    /// A page has about a thousand users at most, and two thousand in no case. A cursor stays valid while sessions
    /// start and end. It does not depend on the handle that made it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a cursor that cannot be one of this store. A
    /// listing that can no longer be complete, for example because of a failover, fails with
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): start another one.
    fn list_users(
        &self,
        after: Option<&UserCursor>,
    ) -> impl Future<Output = Result<UserPage, Error>> + Send;

    /// Returns the user's cached value, or `None` if there is none or it has expired.
    fn get_user(&self, user_id: &str) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;

    /// Caches a value for a user for `ttl` if the condition in `mode` holds, in one atomic step.
    ///
    /// `false` if the condition did not hold; then nothing was changed. With [`PutMode::IfUnchanged`], `false` can also
    /// mean that the store repeated the call after the reply to the first try was lost, and that the first try did it.
    fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Returns a future that resolves when the sessions of a user may have changed since this call, even if it has not
    /// been polled before: for streams that end with their session.
    ///
    /// It may also resolve without a change. By default it never resolves. A manager checks the session of a stream
    /// from time to time in any case, so a change may also be missed.
    fn changed(&self, user_id: &str) -> impl Future<Output = ()> + Send {
        let _ = user_id;
        std::future::pending()
    }

    /// Tells whether the store can serve requests now, for readiness probes.
    ///
    /// It takes at most one concurrent round trip to each server, and changes nothing. Only servers that take writes
    /// may answer it.
    fn ping(&self) -> impl Future<Output = Result<(), Error>> + Send;
}
