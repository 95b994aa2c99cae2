use std::{
    any::Any,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, Serializer, de::DeserializeOwned, ser::SerializeMap};
use serde_json::{Map, Value};

use super::metadata;
use crate::{Error, RefusalReason, Scopes, TokenId};

/// An event in the life of the sessions of a manager, for
/// [`TokenManagerBuilder::on_event`](crate::TokenManagerBuilder::on_event).
///
/// An event contains no token: a [`TokenId`] grants no access.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    kind: EventKind<'a>,
    metadata: Option<&'a [u8]>,
    context: Option<&'a EventContext>,
}

/// A value that the application attaches to events, such as the request that caused them.
pub(crate) struct EventContext(Box<dyn Any + Send + Sync>);

/// What happened, with its particulars: the [kind](Event::kind) of an [`Event`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum EventKind<'a> {
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
        /// The user of the operation; `None` for an operation on the store as a whole. That of a `check` is an
        /// unverified claim of the client.
        user_id: Option<&'a str>,
        /// The session of the operation; `None` for an operation on no particular session.
        token_id: Option<&'a TokenId>,
        /// The error that the callers got.
        error: &'a Error,
    },
}

impl EventContext {
    pub(crate) fn new(value: impl Any + Send + Sync) -> Self {
        Self(Box::new(value))
    }

    pub(super) fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl<'a> Event<'a> {
    pub(super) fn new(
        kind: EventKind<'a>,
        metadata: Option<&'a [u8]>,
        context: Option<&'a EventContext>,
    ) -> Self {
        Self {
            kind,
            metadata,
            context,
        }
    }

    /// What happened.
    pub fn kind(&self) -> EventKind<'a> {
        self.kind
    }

    /// The name of the [kind](Self::kind), for logs and metrics: `logged_in`, `evicted`, `refreshed`, `authenticated`,
    /// `replaced`, `reused`, `logged_out`, `logged_out_all`, `refused` or `failed`.
    pub fn name(&self) -> &'static str {
        match self.kind {
            EventKind::LoggedIn { .. } => "logged_in",
            EventKind::Evicted { .. } => "evicted",
            EventKind::Refreshed { .. } => "refreshed",
            EventKind::Authenticated { .. } => "authenticated",
            EventKind::Replaced { .. } => "replaced",
            EventKind::Reused { .. } => "reused",
            EventKind::LoggedOut { .. } => "logged_out",
            EventKind::LoggedOutAll { .. } => "logged_out_all",
            EventKind::Refused { .. } => "refused",
            EventKind::Failed { .. } => "failed",
        }
    }

    /// The user, if the event is about one. In [`Refused`](EventKind::Refused), and in the
    /// [`Failed`](EventKind::Failed) of a check, it may be an unverified claim of the client.
    pub fn user_id(&self) -> Option<&'a str> {
        match self.kind {
            EventKind::LoggedIn { user_id, .. }
            | EventKind::Evicted { user_id, .. }
            | EventKind::Refreshed { user_id, .. }
            | EventKind::Authenticated { user_id, .. }
            | EventKind::Replaced { user_id, .. }
            | EventKind::Reused { user_id, .. }
            | EventKind::LoggedOut { user_id, .. }
            | EventKind::LoggedOutAll { user_id, .. } => Some(user_id),
            EventKind::Refused { user_id, .. } | EventKind::Failed { user_id, .. } => user_id,
        }
    }

    /// The handle of the session, if the event is about one; as unverified as the [user](Self::user_id).
    pub fn token_id(&self) -> Option<&'a TokenId> {
        match self.kind {
            EventKind::LoggedIn { token_id, .. }
            | EventKind::Evicted { token_id, .. }
            | EventKind::Refreshed { token_id, .. }
            | EventKind::Authenticated { token_id, .. }
            | EventKind::Replaced { token_id, .. }
            | EventKind::Reused { token_id, .. }
            | EventKind::LoggedOut { token_id, .. } => Some(token_id),
            EventKind::LoggedOutAll { .. } => None,
            EventKind::Refused { token_id, .. } | EventKind::Failed { token_id, .. } => token_id,
        }
    }

    /// The [metadata](crate::TokenOptions::metadata) of the session, if the operation has read it: at a login, an
    /// eviction and a replacement, in calls on a [`Session`](crate::Session) that change this session (as of its
    /// request), at renewals, and when a replaced token or a guard refuses. `None` in all other cases: to end or
    /// refresh a session, the manager need not read it.
    pub fn metadata(&self) -> Option<Map<String, Value>> {
        self.metadata
            .map(|metadata| metadata::entries(Some(metadata)))
    }

    /// The [metadata](Self::metadata) as a type of your own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialize`](crate::ErrorKind::Serialize) if the metadata are not of this type.
    pub fn metadata_as<T: DeserializeOwned>(&self) -> Option<Result<T, Error>> {
        let metadata = self.metadata?;
        Some(metadata::entries_as(Some(metadata)))
    }

    /// The [scopes](crate::Scopes) of the session, if they are known like the [metadata](Self::metadata).
    pub fn scopes(&self) -> Option<Scopes> {
        let metadata = self.metadata?;
        Some(metadata::scopes(Some(metadata)))
    }

    /// The context of the request that caused the event, as
    /// [`SessionLayer::event_context`](crate::SessionLayer::event_context) made it, or that of
    /// [`TokenManager::with_event_context`](crate::TokenManager::with_event_context). `None` if there is none of this
    /// type.
    ///
    /// A [failure](EventKind::Failed) that the store or the loader returns has none: a load may serve several requests.
    pub fn context<T: Any>(&self) -> Option<&'a T> {
        self.context?.get()
    }
}

/// `Debug` shows neither metadata nor context, which may be secrets of the application.
impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Event");
        debug.field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Serializes as an object for audit logs: `event` (the [name](Event::name)) and, as far as they are known, `user_id`,
/// `token_id`, `metadata`, `scope`, and the particulars of the [kind](EventKind) under their names; `error` is the text
/// of the error, and `error_kind` its [kind](crate::ErrorKind::as_str). Times are in seconds since the Unix epoch (the
/// NumericDate of RFC 7519). The [context](Event::context) is not part of it. The metadata are: serialize parts of the
/// event if they are not for logs.
impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("event", self.name())?;
        if let Some(user_id) = self.user_id() {
            object.serialize_entry("user_id", user_id)?;
        }
        if let Some(token_id) = self.token_id() {
            object.serialize_entry("token_id", token_id)?;
        }
        match self.kind {
            EventKind::LoggedIn { expires_at, .. } | EventKind::Replaced { expires_at, .. } => {
                let since = expires_at.duration_since(UNIX_EPOCH).unwrap_or_default();
                object.serialize_entry("expires_at", &since.as_secs())?;
            }
            EventKind::LoggedOutAll { kept, sessions, .. } => {
                if let Some(kept) = kept {
                    object.serialize_entry("kept", kept)?;
                }
                object.serialize_entry("sessions", &sessions)?;
            }
            EventKind::Refused { reason, .. } => {
                object.serialize_entry("reason", reason.as_str())?;
            }
            EventKind::Failed {
                operation, error, ..
            } => {
                object.serialize_entry("operation", operation)?;
                object.serialize_entry("error_kind", error.kind().as_str())?;
                object.serialize_entry("error", &error.to_string())?;
            }
            _ => {}
        }
        if let Some(metadata) = self.metadata() {
            object.serialize_entry("metadata", &metadata)?;
        }
        if let Some(scopes) = self.scopes().filter(|scopes| !scopes.is_empty()) {
            object.serialize_entry("scope", &scopes)?;
        }
        object.end()
    }
}
