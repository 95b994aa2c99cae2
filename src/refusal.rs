/// Why a token or a login was refused: the reason in an event. (The HTTP response is a
/// [`Rejection`](crate::Rejection).)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The token is malformed, or two cookies of the same name differ.
    Malformed,
    /// The request has more than one token: in two sources, or twice in one.
    SeveralTokens,
    /// The token is a JWT that failed verification: an unknown key, an expired token, another audience, and so on.
    NotVerified,
    /// The token is unknown, expired or revoked.
    NotLive,
    /// The token was [replaced](crate::TokenManager::replace_token): it can be neither refreshed nor replaced again.
    Replaced,
    /// The token was replaced, and its grace is over. Its session was ended.
    Reused,
    /// The user loader found no such user.
    NoSuchUser,
    /// The user is at the session limit.
    SessionLimit,
    /// The session lacks a [scope](crate::middleware::RequireScope).
    InsufficientScope,
    /// The user's last login is [too old](crate::middleware::RequireRecentAuthentication).
    StaleAuthentication,
    /// The session does not fulfil a [predicate](crate::middleware::RequirePredicate).
    Forbidden,
}

impl RefusalReason {
    /// The reason as the label of a metric: `malformed`, `several_tokens`, `not_verified`, `not_live`, `replaced`,
    /// `reused`, `no_such_user`, `session_limit`, `insufficient_scope`, `stale_authentication` or `forbidden`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::SeveralTokens => "several_tokens",
            Self::NotVerified => "not_verified",
            Self::NotLive => "not_live",
            Self::Replaced => "replaced",
            Self::Reused => "reused",
            Self::NoSuchUser => "no_such_user",
            Self::SessionLimit => "session_limit",
            Self::InsufficientScope => "insufficient_scope",
            Self::StaleAuthentication => "stale_authentication",
            Self::Forbidden => "forbidden",
        }
    }
}
