use std::{
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

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
    /// When the session expires: at this moment it is no longer live.
    pub expires_at: SystemTime,
    /// The absolute end, which no refresh moves; `expires_at` is never after it.
    pub ends_at: Option<SystemTime>,
    /// The bytes with which the session was created.
    pub metadata: Option<Bytes>,
}

/// A change of a live session, for [`SessionStore::update`](super::SessionStore::update).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionChange {
    /// The new time to live, at least 1 ms. The moment of the change becomes the session's
    /// [`refreshed_at`](SessionRecord::refreshed_at).
    pub ttl: Duration,
    /// Changes the session only if it still has this version (compare-and-set). `None` for any version.
    pub if_version: Option<SessionVersion>,
}

/// The version of a session: the times that a change sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The result of [`SessionStore::check`](super::SessionStore::check) for a live session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checked {
    /// The time of the check, by the store's clock.
    pub now: SystemTime,
    /// The session.
    pub session: SessionRecord,
    /// The user's cached value, if it exists and has not expired.
    pub user: Option<Bytes>,
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
            ttl,
            if_version: None,
        }
    }
}

impl Created {
    /// Returns the result for this session and those that it evicted.
    pub fn new(session: SessionRecord, evicted: Vec<(TokenId, SessionRecord)>) -> Self {
        Self { session, evicted }
    }
}

impl Checked {
    /// Returns the result for this session, at this time of the store's clock.
    pub fn new(now: SystemTime, session: SessionRecord, user: Option<Bytes>) -> Self {
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

impl SessionRecord {
    /// A session that is created at `now`, by the store's clock. A store that reads a record back sets the fields.
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

    /// The version of the session, for a conditional [`SessionChange`].
    pub fn version(&self) -> SessionVersion {
        SessionVersion {
            refreshed_at: self.refreshed_at,
            expires_at: self.expires_at,
        }
    }

    /// Applies a change at `now`, by the store's clock; returns `false` and changes nothing if its condition does not
    /// hold.
    ///
    /// For stores that read a record, change it and write it back in one atomic step.
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

fn earlier(time: SystemTime, end: Option<SystemTime>) -> SystemTime {
    end.map_or(time, |end| time.min(end))
}
