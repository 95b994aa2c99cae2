use std::{fmt, sync::Arc, time::SystemTime};

use crate::TokenId;

/// Something that happened to sessions, at this manager; for
/// [`TokenManagerBuilder::on_event`](crate::TokenManagerBuilder::on_event).
///
/// There is no token in it; a [`TokenId`] opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A session began.
    #[non_exhaustive]
    LoggedIn {
        /// Whose it is.
        user_id: &'a str,
        /// Its handle.
        token_id: &'a TokenId,
        /// When it expires unless it is refreshed.
        expires_at: SystemTime,
    },
    /// A login ended this session, to keep the session limit.
    #[non_exhaustive]
    Evicted {
        /// Whose it was.
        user_id: &'a str,
        /// Its handle.
        token_id: &'a TokenId,
    },
    /// A session was prolonged, on demand or by sliding expiry.
    #[non_exhaustive]
    Refreshed {
        /// Whose it is.
        user_id: &'a str,
        /// Its handle.
        token_id: &'a TokenId,
    },
    /// A live session was ended.
    #[non_exhaustive]
    LoggedOut {
        /// Whose it was.
        user_id: &'a str,
        /// Its handle.
        token_id: &'a TokenId,
    },
    /// All sessions of a user were ended, or all but one.
    #[non_exhaustive]
    LoggedOutAll {
        /// Whose they were.
        user_id: &'a str,
        /// The one that was kept.
        kept: Option<&'a TokenId>,
        /// How many there were; some of them may have expired before.
        sessions: u64,
    },
    /// A token was not accepted, or a login refused.
    #[non_exhaustive]
    Refused {
        /// Who the token says it is of; for [`Refusal::NotLive`] this may be anybody's claim. `None` if it says nothing.
        user_id: Option<&'a str>,
        /// Its handle, if it is a token.
        token_id: Option<&'a TokenId>,
        /// Why.
        reason: Refusal,
    },
}

/// Why a token was not accepted, or a login refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// It is no token, or two cookies disagree.
    Malformed,
    /// The request has more than one token in one place.
    SeveralTokens,
    /// It is a JWT, but not signed by a known key, or expired, or for another audience, and so on.
    NotVerified,
    /// It is unknown, expired or revoked.
    NotLive,
    /// The user loader knows no such user.
    NoSuchUser,
    /// The user has as many sessions as allowed.
    SessionLimit,
}

impl Refusal {
    /// For a label of a metric: `malformed`, `several_tokens`, `not_verified`, `not_live`, `no_such_user` or
    /// `session_limit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::SeveralTokens => "several_tokens",
            Self::NotVerified => "not_verified",
            Self::NotLive => "not_live",
            Self::NoSuchUser => "no_such_user",
            Self::SessionLimit => "session_limit",
        }
    }
}

/// What is told of events.
#[derive(Clone, Default)]
pub(super) struct Listener(Option<Arc<Hook>>);

type Hook = dyn Fn(&Event<'_>) + Send + Sync;

impl Listener {
    pub(super) fn new(hook: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        #[cfg(feature = "tracing")]
        super::trace::event(event);
        if let Some(hook) = &self.0 {
            hook(event);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.0.is_some()).finish()
    }
}
