use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

use tower::BoxError;

/// What went wrong in a session operation.
///
/// An `Error` is a *fault* or a *misuse*, never a verdict on a token: a malformed, unknown or expired
/// token is `Ok(None)` (or `Ok(false)`) everywhere in this crate.
///
/// Match on [`kind`](Error::kind) to act on an error; print it (with its
/// [`source`](std::error::Error::source) chain) to read it. No error text holds a token or a password.
/// Cloning is a reference count, so that one failed load can answer every caller that waited for it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of this kind; `message` must not contain secrets.
    ///
    /// For [`SessionStore`](crate::store::SessionStore) implementations.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// The same with the error that caused it.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }))
    }

    /// What [`OnFull::Reject`](crate::OnFull::Reject) says to a login.
    pub(crate) fn session_limit() -> Self {
        Self::new(
            ErrorKind::SessionLimit,
            "the user has reached the session limit",
        )
    }

    /// There is no token, and no other secret, without it.
    pub(crate) fn random(source: getrandom::Error) -> Self {
        let message = "the operating system gave no random bytes";
        Self::with_source(ErrorKind::Random, message, source)
    }

    /// A load that ended without an outcome.
    pub(crate) fn cut_short() -> Self {
        Self::new(ErrorKind::LoadUser, "the load of the user was cut short")
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without any change to the program: the store or the
    /// user loader failed, not the caller.
    ///
    /// Over HTTP such an error is `503 Service Unavailable`.
    pub fn is_fault(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Unavailable
                | ErrorKind::Timeout
                | ErrorKind::Unconfirmed
                | ErrorKind::Store
                | ErrorKind::LoadUser
        )
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.0.kind)
            .field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration cannot work: a bad URL, prefix, limit or default duration.
    Config,
    /// An argument cannot be used: a user id that is empty or too long, a zero or too large duration,
    /// too much metadata, a cached value that is too large.
    InvalidInput,
    /// The user has as many sessions as the limit allows, and the limit says to
    /// [reject](crate::OnFull::Reject) another login.
    SessionLimit,
    /// The store cannot be reached, or refuses to serve at the moment.
    Unavailable,
    /// The store did not answer in time. A write may or may not have been done, but is not done later; every write is
    /// safe to repeat.
    Timeout,
    /// It is done, but not as safely as was asked for: too few replicas have it, so that a failover may
    /// undo it. Only with
    #[cfg_attr(
        feature = "redis",
        doc = "[`confirm_replicas`](crate::RedisStoreBuilder::confirm_replicas)."
    )]
    #[cfg_attr(not(feature = "redis"), doc = "`RedisStoreBuilder::confirm_replicas`.")]
    Unconfirmed,
    /// The store answered, but with an error or with something that makes no sense.
    Store,
    /// The user loader failed, panicked, or took too long.
    LoadUser,
    /// The call needs a user loader, and the manager has none.
    NoLoader,
    /// The user's detail cannot be cached: it cannot be written as JSON, or not be read back from that, or it is larger
    /// than [`max_user_size`](crate::TokenManagerBuilder::max_user_size).
    Serialize,
    /// The operating system gave no random bytes. There is no fallback.
    Random,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_the_message_and_the_cause_is_the_source() {
        let error = Error::with_source(ErrorKind::LoadUser, "the user loader failed", "db is down");
        assert_eq!(error.to_string(), "the user loader failed");
        assert_eq!(error.source().unwrap().to_string(), "db is down");
        assert!(error.is_fault());
        assert!(!Error::new(ErrorKind::Config, "x").is_fault());
    }
}
