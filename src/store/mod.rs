//! Where sessions live: the [`SessionStore`] contract and the stores that keep it.
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
//! A store knows user ids, [token ids](TokenId), durations and opaque bytes. It sees no token, no user
//! type and no HTTP. Every application talks to it through a [`TokenManager`](crate::TokenManager);
//! only those who write a store of their own need this module.

use std::{
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{Error, TokenId};

pub(crate) use self::erased::{BoxFuture, ErasedStore, Lookup};
#[cfg(feature = "mysql")]
#[cfg_attr(docsrs, doc(cfg(feature = "mysql")))]
pub use self::mysql::{MySqlStore, MySqlStoreBuilder};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::{RedisHealth, RedisPrimary, RedisStore, RedisStoreBuilder, RedisTopology};
pub use self::{
    intercept::{InterceptedStore, Operation, StoreInterceptor},
    memory::MemoryStore,
};

#[cfg(any(feature = "mysql", feature = "redis"))]
mod config;
mod erased;
mod intercept;
mod memory;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "redis")]
pub(crate) mod redis;

/// The longest duration for which sessions and cached users can be kept: 100 years of 365 days.
pub const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The most bytes that a cached value, or the metadata of a session, can have: 1 MiB.
pub const MAX_VALUE_LEN: usize = 1024 * 1024;

/// The contract between a [`TokenManager`](crate::TokenManager) and the place where sessions live.
///
/// A session is identified by a user id (1 to 255 bytes of UTF-8) and a [`TokenId`]. Durations are 1 ms to
/// [`MAX_TTL`], in whole milliseconds. A session is **live** from its
/// creation until it expires, by the store's own clock, or is deleted. Expired and deleted sessions
/// are the same as ones that never were, for every method.
///
/// All methods are *linearizable* per user unless they say otherwise: each takes effect at one moment
/// between its call and its return, and once a [`delete`](Self::delete) or [`delete_all`](Self::delete_all)
/// has returned, no check anywhere finds what it removed, whatever else is in flight.
///
/// After an error a write may or may not have been done, but it is **not done later**: no write takes effect once its
/// call has returned. Repeating it is safe. A store may repeat a write on its own, after the reply to the first try was
/// lost, but only when the first try can no longer take effect: a late logout of all sessions would end a newer login.
/// It must not repeat [`create`](Self::create) once that may have been done: the session may have been logged out since
/// then, and would come back.
///
/// Limits are at most [`SessionLimit::MAX`], and cached values and metadata have at most [`MAX_VALUE_LEN`] bytes. For
/// more, a store may answer [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
///
/// Every call ends within a bounded time, whatever becomes of the servers: a store has deadlines of its own. A manager
/// gives up a call for which nobody waits any more after 60 seconds, and waits without end where somebody does.
///
/// An implementer writes plain `async fn`s. Errors are faults, of the kinds
/// [`Unavailable`](crate::ErrorKind::Unavailable), [`Timeout`](crate::ErrorKind::Timeout),
/// [`Unconfirmed`](crate::ErrorKind::Unconfirmed) and [`Store`](crate::ErrorKind::Store); or
/// [`Config`](crate::ErrorKind::Config) if the store is not set up, [`SessionLimit`](crate::ErrorKind::SessionLimit)
/// from `create`, and `InvalidInput` as above.
///
/// `store_conformance_tests!` (feature `test-util`) has a test for each point of this.
pub trait SessionStore: Send + Sync + 'static {
    /// Starts a session, if there is none of this user and token, and keeps the user's limit.
    ///
    /// Insertion and limit are **one atomic step**: under any number of concurrent logins no user ever has more than
    /// `limit.max` live sessions. Repeating the call for a live session changes nothing and returns that session. If
    /// more sessions are live than any limit allows, because the limit is new, a store may end most of those in excess
    /// before that step, in several ones.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SessionLimit`](crate::ErrorKind::SessionLimit) if the user is at the limit and the limit says
    /// [`OnFull::Reject`]; then nothing was changed.
    fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> impl Future<Output = Result<Created, Error>> + Send;

    /// Looks a session up, with the user's cached value: **one round trip**, no write.
    ///
    /// `None` if no such session is live. A session whose record cannot be decoded is not live. The
    /// session and the cached value need not be from the same moment.
    fn check(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> impl Future<Output = Result<Option<Checked>, Error>> + Send;

    /// What [`check`](Self::check) would answer, for a store that can tell at once, without blocking; `None` if it has
    /// to wait for the answer, as by default.
    ///
    /// For stores in memory, whose requests then cost no future: it is called where a service is, and must neither
    /// block nor panic. None is always right. A store that wraps another one and does something about
    /// [`check`](Self::check) must do it here, too, or answer `None`.
    fn check_now(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Option<Result<Option<Checked>, Error>> {
        let _ = (user_id, token_id);
        None
    }

    /// Changes a live session, in **one atomic step** with the condition in `change`.
    ///
    /// `false` if no such session is live, or if the condition does not hold; then nothing was changed. An update
    /// never brings a session back, never creates one, and never moves its expiry past its
    /// [`ends_at`](SessionRecord::ends_at). With a condition, `false` can also mean that the store repeated the update
    /// after the reply to the first try was lost, and that the first try did it.
    fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Makes a live session expire `ttl` from now, by an [`update`](Self::update) without a condition.
    ///
    /// `false` if no such session is live.
    fn refresh(
        &self,
        user_id: &str,
        token_id: &TokenId,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        async move {
            let change = SessionChange::refresh(ttl);
            self.update(user_id, token_id, &change).await
        }
    }

    /// Ends a session. `true` if this call ended a live one, or if it may have: a store that repeats the call after
    /// the reply to the first try was lost, and then finds none, cannot tell.
    fn delete(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Ends all sessions of a user, but for `except`, in **one atomic step**: after it returns, no session
    /// that was created before the call and not excepted is live.
    ///
    /// `except` is kept only if it is live; it is never created. Returns how many sessions were removed; the
    /// number may include ones that had expired but were not freed yet. It is at least 1 if the store repeated the call
    /// after the reply to the first try was lost.
    fn delete_all(
        &self,
        user_id: &str,
        except: Option<&TokenId>,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// The live sessions of a user, oldest first.
    ///
    /// Not atomic: large results may be read in pages. A session that was live during the whole call is in
    /// the result, once; one that began or ended meanwhile may be. Records that cannot be decoded are
    /// left out.
    fn list(
        &self,
        user_id: &str,
    ) -> impl Future<Output = Result<Vec<(TokenId, SessionRecord)>, Error>> + Send;

    /// The user's cached value; `None` if there is none or it has expired.
    fn get_user(&self, user_id: &str) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;

    /// Caches a value for a user for `ttl`, in one atomic step with the condition in `mode`.
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

    /// Asks whether the store can serve now, for readiness probes: at most one round trip to each server, all at the
    /// same time, and no change. Only servers that take writes may answer it.
    fn ping(&self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// What a new session is to be like.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewSession {
    /// How long it lives unless it is refreshed; at least 1 ms.
    pub ttl: Duration,
    /// How long it lives at most, refreshed or not; at least 1 ms. `None`: no such end.
    pub max_lifetime: Option<Duration>,
    /// Opaque bytes (a JSON object, from a [`TokenManager`](crate::TokenManager)) to keep with it. None at all are the
    /// same as `None`.
    pub metadata: Option<Bytes>,
}

/// What a store knows of a live session. All times are by the store's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRecord {
    /// When it began.
    pub created_at: SystemTime,
    /// When it was last refreshed; `created_at` if never.
    pub refreshed_at: SystemTime,
    /// When it expires, exclusive: at this moment it is no longer live.
    pub expires_at: SystemTime,
    /// The end that no refresh can move; `expires_at` is never after it.
    pub ends_at: Option<SystemTime>,
    /// The bytes it was created with.
    pub metadata: Option<Bytes>,
}

/// How to change a live session; for [`SessionStore::update`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionChange {
    /// How long the session lives from now on unless it is refreshed again; at least 1 ms. The moment of the change
    /// becomes its [`refreshed_at`](SessionRecord::refreshed_at).
    pub ttl: Duration,
    /// Change the session only if this is still its version (compare-and-set). `None`: whatever its version.
    pub if_version: Option<SessionVersion>,
}

/// What tells two states of one session apart: the times that a change sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionVersion {
    /// Its [`refreshed_at`](SessionRecord::refreshed_at).
    pub refreshed_at: SystemTime,
    /// Its [`expires_at`](SessionRecord::expires_at).
    pub expires_at: SystemTime,
}

/// The answer of [`SessionStore::create`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Created {
    /// The session, as it is now.
    pub session: SessionRecord,
    /// The live sessions that had to go to keep the limit, first to go first. Of more than 512, as a limit that is new
    /// may end, a store may name the first 512 only.
    pub evicted: Vec<(TokenId, SessionRecord)>,
}

/// The answer of [`SessionStore::check`] for a live session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checked {
    /// The store's clock at the check.
    pub now: SystemTime,
    /// The session.
    pub session: SessionRecord,
    /// The user's cached value, if there is one that has not expired.
    pub user: Option<Bytes>,
}

/// The condition under which [`SessionStore::put_user`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode<'a> {
    /// Always.
    Replace,
    /// Only if the cached value still is this one (`None`: only if there is none).
    IfUnchanged(Option<&'a [u8]>),
}

/// How many live sessions a user may have, and what happens at one more login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionLimit {
    /// The most that may be live at any moment; at most [`SessionLimit::MAX`].
    pub max: NonZeroU32,
    /// What to do when a login finds the user at `max`.
    pub on_full: OnFull,
}

/// What a login does when the user has as many sessions as the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnFull {
    /// End the session that began first.
    EvictOldest,
    /// End the session that was not refreshed (or begun) for the longest time.
    EvictLeastRecentlyRefreshed,
    /// Refuse the login with [`ErrorKind::SessionLimit`](crate::ErrorKind::SessionLimit).
    Reject,
}

impl NewSession {
    /// A session without absolute end and metadata; set the fields for more.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            max_lifetime: None,
            metadata: None,
        }
    }
}

impl SessionChange {
    /// A session that expires `ttl` from now, whatever its version.
    pub fn refresh(ttl: Duration) -> Self {
        Self {
            ttl,
            if_version: None,
        }
    }
}

impl Created {
    /// The answer for this session and those that it displaced.
    pub fn new(session: SessionRecord, evicted: Vec<(TokenId, SessionRecord)>) -> Self {
        Self { session, evicted }
    }
}

impl Checked {
    /// The answer for this session, at this time of the store's clock.
    pub fn new(now: SystemTime, session: SessionRecord, user: Option<Bytes>) -> Self {
        Self { now, session, user }
    }
}

impl SessionLimit {
    /// The largest limit: 1,000 sessions.
    ///
    /// A login at the limit reads all sessions of the user in one atomic step, during which a server such as Redis
    /// answers nobody else.
    pub const MAX: u32 = 1_000;

    /// At most `max` sessions.
    pub fn new(max: NonZeroU32, on_full: OnFull) -> Self {
        Self { max, on_full }
    }
}

impl SessionRecord {
    /// A session that begins at `now`, by the store's clock. A store that reads one back sets the fields.
    pub fn begin(new: &NewSession, now: SystemTime) -> Self {
        let ends_at = new.max_lifetime.map(|lifetime| now + lifetime);
        Self {
            created_at: now,
            refreshed_at: now,
            expires_at: earlier(now + new.ttl, ends_at),
            ends_at,
            metadata: new.metadata.clone().filter(|bytes| !bytes.is_empty()),
        }
    }

    /// The version of this state of the session, for a [`SessionChange`] that depends on it.
    pub fn version(&self) -> SessionVersion {
        SessionVersion {
            refreshed_at: self.refreshed_at,
            expires_at: self.expires_at,
        }
    }

    /// Applies a change at `now`, by the store's clock; `false`, and nothing is changed, if its condition does not
    /// hold. For stores that read a record, change it and write it back in one atomic step.
    pub fn apply(&mut self, change: &SessionChange, now: SystemTime) -> bool {
        if change
            .if_version
            .is_some_and(|version| version != self.version())
        {
            return false;
        }
        self.refreshed_at = now;
        self.expires_at = earlier(now + change.ttl, self.ends_at);
        true
    }
}

/// `time`, but not after `end`.
fn earlier(time: SystemTime, end: Option<SystemTime>) -> SystemTime {
    end.map_or(time, |end| time.min(end))
}
