use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    CachedUser,
    rotation::{NewToken, Rotation},
};
use crate::TokenId;

/// The properties of a new session, for [`SessionStore::create`](super::SessionStore::create).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewSession {
    /// The time to live of the session unless it is refreshed; at least 1 ms.
    pub ttl: Duration,
    /// The absolute lifetime, which no refresh extends; at least 1 ms. `None` for no absolute end.
    pub max_lifetime: Option<Duration>,
    /// Opaque bytes to keep with the session: a JSON object, from a [`TokenManager`](crate::TokenManager). An empty
    /// value is the same as `None`.
    pub metadata: Option<Bytes>,
}

/// A live session in a store. All times are by the store's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRecord {
    /// When the session started.
    pub created_at: SystemTime,
    /// When the session was last refreshed, or else `created_at`.
    pub refreshed_at: SystemTime,
    /// When the user last proved who they are: `created_at`, or the moment of a later
    /// [re-authentication](SessionChange::authenticated).
    pub authenticated_at: SystemTime,
    /// When the session expires: at this moment it is no longer live.
    pub expires_at: SystemTime,
    /// The absolute end, which no refresh moves; `expires_at` is never after it.
    pub ends_at: Option<SystemTime>,
    /// The bytes that the creation or the last change set; never empty.
    pub metadata: Option<Bytes>,
    /// The tokens of the session, if its first one has been [replaced](SessionChange::new_token).
    pub rotation: Option<Box<Rotation>>,
    /// Whether only a newer version of the store can interpret the record: creation, last refresh and expiry are known,
    /// and nothing else. Such a session is listed, counted for limits and evicted in its turn, kept by
    /// [`delete_all`](super::SessionStore::delete_all) if it is the exception, and ended by a logout; every other call
    /// on it fails with [`ErrorKind::Store`](crate::ErrorKind::Store).
    pub is_opaque: bool,
}

/// A change of a live session, for [`SessionStore::update`](super::SessionStore::update).
///
/// The conditions are those fields that begin with `if_`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SessionChange {
    /// The new time to live, at least 1 ms. The moment of the change becomes the session's
    /// [`refreshed_at`](SessionRecord::refreshed_at). `None` keeps both times.
    pub ttl: Option<Duration>,
    /// The new metadata, of at most [`MAX_VALUE_LEN`](super::MAX_VALUE_LEN) bytes; an empty value removes it. `None`
    /// keeps the metadata.
    pub metadata: Option<Bytes>,
    /// Whether the moment of the change becomes the session's [`authenticated_at`](SessionRecord::authenticated_at).
    pub authenticated: bool,
    /// A token that replaces the [current one](SessionRecord::current_token) of the session.
    pub new_token: Option<NewToken>,
    /// Whether all other sessions of the user end in the same atomic step.
    pub end_others: bool,
    /// Changes the session only if this is its current token. `None` for any token.
    pub if_token: Option<TokenId>,
    /// Changes the session only if it still has this version (compare-and-set). `None` for any version.
    pub if_version: Option<SessionVersion>,
    /// Changes the session only if its metadata is still this (compare-and-set), where an empty value stands for none.
    /// `None` for any metadata.
    pub if_metadata: Option<Bytes>,
}

/// The version of a session: the times that a refresh sets. A change without a [`ttl`](SessionChange::ttl) keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionVersion {
    /// The session's [`refreshed_at`](SessionRecord::refreshed_at).
    pub refreshed_at: SystemTime,
    /// The session's [`expires_at`](SessionRecord::expires_at).
    pub expires_at: SystemTime,
}

/// The result of [`SessionStore::create`](super::SessionStore::create).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Created {
    /// The session.
    pub session: SessionRecord,
    /// The live sessions that were evicted to keep the limit, in the order of their eviction. Of more than 512, which a
    /// new limit may evict, a store may name only the first 512.
    pub evicted: Vec<(TokenId, SessionRecord)>,
}

/// The result of [`SessionStore::update`](super::SessionStore::update) for a session that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Updated {
    /// When the session expires now.
    pub expires_at: SystemTime,
    /// The number of other sessions that [`end_others`](SessionChange::end_others) ended, counted as in
    /// [`delete_all`](super::SessionStore::delete_all).
    pub ended: u64,
}

/// The result of [`SessionStore::check`](super::SessionStore::check) for a live session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checked {
    /// The time of the check, by the store's clock.
    pub now: SystemTime,
    /// The session. Shared, so that a store that has it at hand need not copy it.
    pub session: Arc<SessionRecord>,
    /// The user's cached value, if it exists and has not expired.
    pub user: Option<CachedUser>,
}

/// The condition under which [`SessionStore::put_user`](super::SessionStore::put_user) writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode<'a> {
    /// Writes in any case.
    Replace,
    /// Writes only if the cached value is still this one; with `None`, only if there is none.
    IfUnchanged(Option<&'a [u8]>),
}

/// The limit of live sessions of a user, and what a login at the limit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionLimit {
    /// The maximum number of live sessions; at most [`SessionLimit::MAX`].
    pub max: NonZeroU32,
    /// What a login does when the user has `max` sessions.
    pub on_full: OnFull,
}

/// What a login does when the user is at the session limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnFull {
    /// Evict the session that started first.
    EvictOldest,
    /// Evict the session whose last refresh, or else its start, was first.
    EvictLeastRecentlyRefreshed,
    /// Reject the login with [`ErrorKind::SessionLimit`](crate::ErrorKind::SessionLimit).
    Reject,
}

impl NewSession {
    /// Returns a session with this time to live, without absolute end and metadata.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            max_lifetime: None,
            metadata: None,
        }
    }
}

impl SessionChange {
    /// An unconditional change that makes the session expire `ttl` from now.
    pub fn refresh(ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..Self::default()
        }
    }
}

impl SessionVersion {
    /// The version of a session with these times.
    pub fn new(refreshed_at: SystemTime, expires_at: SystemTime) -> Self {
        Self {
            refreshed_at,
            expires_at,
        }
    }
}

impl Updated {
    /// Returns the result for a session with this expiry, and the number of other sessions that were ended.
    pub fn new(expires_at: SystemTime, ended: u64) -> Self {
        Self { expires_at, ended }
    }
}

impl Created {
    /// Returns the result for this session and those that it evicted.
    pub fn new(session: SessionRecord, evicted: Vec<(TokenId, SessionRecord)>) -> Self {
        Self { session, evicted }
    }
}

impl Checked {
    /// Returns the result for this session, at this time of the store's clock. A store that keeps cached values in the
    /// process sets [`user`](Self::user) afterwards, to a [`CachedUser::kept`].
    pub fn new(
        now: SystemTime,
        session: impl Into<Arc<SessionRecord>>,
        user: Option<Bytes>,
    ) -> Self {
        let (session, user) = (session.into(), user.map(CachedUser::from));
        Self { now, session, user }
    }
}

impl SessionLimit {
    /// The maximum limit: 1,000 sessions.
    ///
    /// A login at the limit reads all sessions of the user in one atomic step, during which a server such as Redis
    /// answers no other client.
    pub const MAX: u32 = 1_000;

    /// A limit of `max` sessions, with the policy `on_full`.
    pub fn new(max: NonZeroU32, on_full: OnFull) -> Self {
        Self { max, on_full }
    }
}
