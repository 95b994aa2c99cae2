use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{
    metadata,
    types::{IssuedToken, check_ttl},
};
use crate::{Error, RefusalReason, Scopes, store::SessionChange};

/// The default grace of a replaced token.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// How to [replace](crate::TokenManager::replace_token) a token.
///
/// ```
/// use std::time::Duration;
/// use tower_bearer_session::ReplaceOptions;
///
/// // Rotation: the new token lives for another hour.
/// let options = ReplaceOptions::new().ttl(Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ReplaceOptions {
    ttl: Option<Duration>,
    grace: Duration,
    metadata: Map<String, Value>,
    scopes: Option<Vec<String>>,
    authenticated: bool,
    end_others: bool,
}

impl ReplaceOptions {
    /// The defaults: the session keeps its expiry and metadata, and the replaced token can be used for 10 seconds.
    pub fn new() -> Self {
        Self {
            ttl: None,
            grace: DEFAULT_GRACE,
            metadata: Map::new(),
            scopes: None,
            authenticated: false,
            end_others: false,
        }
    }

    /// Makes the session expire `ttl` from now, but never after its absolute end.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets for how long the replaced token can still be used. Default: 10 seconds.
    ///
    /// It is for requests in flight, and for clients that send several at once: until then the replaced token has full
    /// access. With zero, these requests are taken for reuse, which ends the session. The grace also ends when the
    /// session has been given 16 further tokens.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets an entry of the metadata of the session; its other entries stay. All entries together have at most 1024
    /// bytes of JSON.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the [scopes](crate::Scopes) of the session, in place of those that it has.
    pub fn scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.scopes = Some(scopes.into_iter().map(Into::into).collect());
        self
    }

    /// Notes that the user has just proved again who they are.
    pub fn authenticated(mut self) -> Self {
        self.authenticated = true;
        self
    }

    /// Also ends all other sessions of the user, in the same atomic step.
    ///
    /// With any outcome but [`Replaced`](Replacement::Replaced) no other session was ended. After an error it is
    /// unknown.
    pub fn end_others(mut self) -> Self {
        self.end_others = true;
        self
    }

    /// Refuses what cannot be, before a session is known.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.checked_grace()?;
        self.change(None).map(drop)
    }

    /// The change of a session with this metadata, without its tokens.
    pub(super) fn change(&self, current: Option<&Bytes>) -> Result<SessionChange, Error> {
        let mut change = SessionChange {
            ttl: self.ttl.map(check_ttl).transpose()?,
            authenticated: self.authenticated,
            end_others: self.end_others,
            ..SessionChange::default()
        };
        if !self.metadata.is_empty() || self.scopes.is_some() {
            let current = current.cloned().unwrap_or_default();
            let scopes = match &self.scopes {
                Some(scopes) => Scopes::new(scopes)?,
                None => metadata::scopes(Some(&current)),
            };
            let mut entries = metadata::entries(Some(&current));
            entries.extend(self.metadata.clone());
            change.metadata = Some(metadata::replace(&current, &entries, &scopes)?);
            change.if_metadata = Some(current);
        }
        Ok(change)
    }

    /// The grace of the replaced token.
    pub(super) fn checked_grace(&self) -> Result<Duration, Error> {
        match self.grace {
            Duration::ZERO => Ok(Duration::ZERO),
            grace => check_ttl(grace),
        }
    }
}

impl Default for ReplaceOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The outcome of [`TokenManager::replace_token`](crate::TokenManager::replace_token).
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "the token may not have been replaced"]
pub enum Replacement {
    /// The token was replaced.
    #[non_exhaustive]
    Replaced {
        /// The new token, to send to the client. It has evicted no sessions.
        issued: IssuedToken,
        /// How many other sessions of the user were [ended](ReplaceOptions::end_others), which may include some that
        /// had already expired.
        ended: u64,
    },
    /// The token has been replaced before, so another request has the new token. It can be used until the end of its
    /// grace; a handler whose request has lasted longer gets this answer, too.
    AlreadyReplaced,
    /// The token has been replaced before and its grace is over, so the session was ended.
    Reused,
    /// The token is unknown, expired or revoked.
    NotLive,
}

impl Replacement {
    pub(super) fn refused(reason: RefusalReason) -> Self {
        match reason {
            RefusalReason::Replaced => Self::AlreadyReplaced,
            RefusalReason::Reused => Self::Reused,
            _ => Self::NotLive,
        }
    }
}
