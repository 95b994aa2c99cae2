use std::{any::type_name, borrow::Cow, error::Error as StdError, fmt, sync::Arc};

use tower::BoxError;

/// The error of a session operation.
///
/// An `Error` is a *fault* or a *misuse*, never a statement about a token: a malformed, unknown or expired token is
/// `Ok(None)` (or `Ok(false)`) everywhere in this crate.
///
/// Match on [`kind`](Error::kind) to handle an error; log it with its [`source`](std::error::Error::source) chain. No
/// error text contains a token or a password. Cloning only increments a reference count, so one failed load can answer
/// every waiting caller.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<BoxError>,
}

impl Error {
    /// Creates an error of the given kind; `message` must not contain secrets.
    ///
    /// For [`SessionStore`](crate::store::SessionStore) implementations.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// Creates an error with an underlying cause; neither text may contain secrets.
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

    /// The error of a login that [`OnFull::Reject`](crate::OnFull::Reject) rejects.
    pub(crate) fn session_limit() -> Self {
        Self::new(
            ErrorKind::SessionLimit,
            "the user has reached the session limit",
        )
    }

    /// The error of an operation on a session that only a newer version of this crate can interpret.
    #[cfg(any(feature = "mysql", feature = "redis"))]
    pub(crate) fn newer_session() -> Self {
        let message = "a newer version of this crate has written the session, and this version cannot read it";
        Self::new(ErrorKind::Store, message)
    }

    /// The error of a value that is not of the application's type `T`; without the source, which quotes the value.
    pub(crate) fn wrong_type<T>(what: &str) -> Self {
        let message = format!("{what} not a {}", type_name::<T>());
        Self::new(ErrorKind::Serialize, message)
    }

    /// The error of a failed read from the operating system's random number generator.
    pub(crate) fn random(source: getrandom::Error) -> Self {
        let message = "the operating system gave no random bytes";
        Self::with_source(ErrorKind::Random, message, source)
    }

    /// The error of a user load that was interrupted before it had a result.
    pub(crate) fn load_interrupted() -> Self {
        Self::new(ErrorKind::LoadUser, "the load of the user was cut short")
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the store or the user loader failed, rather than the caller: the same call may succeed later.
    ///
    /// Over HTTP such an error becomes `503 Service Unavailable`.
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
    /// The configuration is invalid: a bad URL, prefix, limit or default duration. Or a MySQL store is not set up: a
    /// database, table or privilege is missing. Somebody has to act before the same call can succeed.
    Config,
    /// An argument is invalid: an empty or too long user id, a zero or too long duration, too much metadata, a cached
    /// value that is too large.
    InvalidInput,
    /// The user is at the session limit, and the limit [rejects](crate::OnFull::Reject) another login.
    SessionLimit,
    /// The store is unreachable, or currently refuses requests.
    Unavailable,
    /// The store did not answer in time. A write may or may not have taken effect, but does not take effect later;
    /// every write is safe to repeat.
    Timeout,
    /// The write took effect, but too few replicas acknowledged it: a failover may roll it back. Only with
    #[cfg_attr(
        feature = "redis",
        doc = "[`confirm_replicas`](crate::RedisStoreBuilder::confirm_replicas)."
    )]
    #[cfg_attr(not(feature = "redis"), doc = "`RedisStoreBuilder::confirm_replicas`.")]
    Unconfirmed,
    /// The store returned an error or an unexpected reply. Also if a Redis account lacks a privilege, and if only a
    /// newer version of this crate can interpret a session.
    Store,
    /// The user loader failed, panicked or timed out.
    LoadUser,
    /// The call needs a user loader, and the manager has none.
    NoLoader,
    /// The user's detail cannot be cached: it does not round-trip through JSON, or it is larger than
    /// [`max_user_size`](crate::TokenManagerBuilder::max_user_size). Or the metadata of a session is not of the
    /// [type](crate::Session::metadata_as) that the caller expects. Or the claims of a JWT are not a JSON object that
    /// can be read back.
    Serialize,
    /// The operating system provided no random bytes. There is no fallback.
    Random,
}

impl ErrorKind {
    /// The kind as the label of a metric: `config`, `invalid_input`, `session_limit`, `unavailable`, `timeout`,
    /// `unconfirmed`, `store`, `load_user`, `no_loader`, `serialize` or `random`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::InvalidInput => "invalid_input",
            Self::SessionLimit => "session_limit",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Unconfirmed => "unconfirmed",
            Self::Store => "store",
            Self::LoadUser => "load_user",
            Self::NoLoader => "no_loader",
            Self::Serialize => "serialize",
            Self::Random => "random",
        }
    }
}

impl fmt::Display for ErrorKind {
    /// Writes [`as_str`](Self::as_str).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
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

    #[test]
    fn the_label_of_a_kind_is_its_name_in_snake_case() {
        for kind in [
            ErrorKind::Config,
            ErrorKind::InvalidInput,
            ErrorKind::NoLoader,
        ] {
            let label = kind.to_string().replace('_', "");
            assert_eq!(label, format!("{kind:?}").to_lowercase());
        }
    }
}
