use std::time::SystemTime;

use crate::{Error, RefusalReason, TokenId};

/// An event in the life of the sessions of a manager, for
/// [`TokenManagerBuilder::on_event`](crate::TokenManagerBuilder::on_event).
///
/// An event contains no token: a [`TokenId`] grants no access.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A session started, and its token was returned to the caller.
    ///
    /// A login that was [undone](crate::TokenManager::set_token) is not reported.
    #[non_exhaustive]
    LoggedIn {
        /// The user.
        user_id: &'a str,
        /// The handle of the session.
        token_id: &'a TokenId,
        /// When the session expires unless it is refreshed.
        expires_at: SystemTime,
    },
    /// A login ended this session to keep the session limit.
    ///
    /// It is also reported if the login was undone because its caller disconnected. After a fault, or if the store did
    /// not answer, it is not known which sessions the login ended. Of more than 512 that end at once, only the first
    /// 512 may be reported.
    #[non_exhaustive]
    Evicted {
        /// The user.
        user_id: &'a str,
        /// The handle of the session.
        token_id: &'a TokenId,
    },
    /// A session was refreshed, by a call or by sliding expiry.
    #[non_exhaustive]
    Refreshed {
        /// The user.
        user_id: &'a str,
        /// The handle of the session.
        token_id: &'a TokenId,
    },
    /// The user of a session proved again who they are: by
    /// [`mark_authenticated`](crate::Session::mark_authenticated) or, after its [`Replaced`](Self::Replaced), by a
    /// [replacement](crate::ReplaceOptions::authenticated).
    #[non_exhaustive]
    Authenticated {
        /// The user.
        user_id: &'a str,
        /// The handle of the session.
        token_id: &'a TokenId,
    },
    /// The token of a session was [replaced](crate::TokenManager::replace_token).
    #[non_exhaustive]
    Replaced {
        /// The user.
        user_id: &'a str,
        /// The handle of the session, which is that of its first token.
        token_id: &'a TokenId,
        /// When the session expires unless it is refreshed.
        expires_at: SystemTime,
    },
    /// A replaced token was presented after its grace, and its session was ended: one of those who have had the token
    /// may have stolen it (RFC 9700 §4.14.2).
    #[non_exhaustive]
    Reused {
        /// The user.
        user_id: &'a str,
        /// The handle of the session.
        token_id: &'a TokenId,
    },
    /// A live session was ended. It may have ended before if the first reply of the store was lost.
    #[non_exhaustive]
    LoggedOut {
        /// The user.
        user_id: &'a str,
        /// The handle of the session.
        token_id: &'a TokenId,
    },
    /// All sessions of a user were ended, or all except one.
    #[non_exhaustive]
    LoggedOutAll {
        /// The user.
        user_id: &'a str,
        /// The session that was kept.
        kept: Option<&'a TokenId>,
        /// The number of sessions; some of them may have expired before.
        sessions: u64,
    },
    /// A token or a login was refused.
    #[non_exhaustive]
    Refused {
        /// The user id in the token, if there is one. Of a token that is [not live](RefusalReason::NotLive), it is an
        /// unverified claim of the client.
        user_id: Option<&'a str>,
        /// The handle of the session that the token names, if it is well-formed; unverified like the user id.
        token_id: Option<&'a TokenId>,
        /// The reason.
        reason: RefusalReason,
    },
    /// A call of the store or of the user loader failed: a fault, or a misconfiguration such as a missing table.
    ///
    /// Each failure is reported once, even if several callers get the error, or none does (a renewal in the background,
    /// a poll by [`revoked`](crate::Session::revoked)). A write that failed may have been done all the same: in an
    /// audit log, a failed `delete` or `delete_all` is a logout whose outcome is unknown.
    #[non_exhaustive]
    Failed {
        /// The name of the operation: a method of [`SessionStore`](crate::SessionStore), or `load_user` for the user
        /// loader and for a detail that cannot be cached.
        operation: &'static str,
        /// The user of the operation; `None` for an operation on the store as a whole.
        user_id: Option<&'a str>,
        /// The session of the operation; `None` for an operation on no particular session.
        token_id: Option<&'a TokenId>,
        /// The error that the callers got.
        error: &'a Error,
    },
}
