use std::time::Duration;

use serde_json::{Map, Value};

use super::types::{IssuedToken, check_ttl, encode_metadata};
use crate::{Error, RefusalReason, store::SessionChange};

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
    /// access. With zero, these requests are taken for reuse, which ends the session.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Adds an entry to new metadata of the session, which replaces all of the old one. All entries together have at
    /// most 1024 bytes of JSON. Default: the session keeps its metadata.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Notes that the user has just proved again who they are.
    pub fn authenticated(mut self) -> Self {
        self.authenticated = true;
        self
    }

    /// Also ends all other sessions of the user, in the same atomic step.
    pub fn end_others(mut self) -> Self {
        self.end_others = true;
        self
    }

    /// The change without its tokens, and the grace.
    pub(crate) fn into_change(self) -> Result<(SessionChange, Duration), Error> {
        let grace = match self.grace {
            Duration::ZERO => Duration::ZERO,
            grace => check_ttl(grace)?,
        };
        let change = SessionChange {
            ttl: self.ttl.map(check_ttl).transpose()?,
            metadata: encode_metadata(&self.metadata)?,
            authenticated: self.authenticated,
            end_others: self.end_others,
            ..SessionChange::default()
        };
        Ok((change, grace))
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
