use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    thread,
    time::SystemTime,
};

use crate::{Error, TokenId};

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
    /// not answer, it is not known which sessions the login ended. Of more than 512 that end at once, only the first 512 may be reported.
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
        /// The handle of the token, if it is well-formed.
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
    /// The user loader found no such user.
    NoSuchUser,
    /// The user is at the session limit.
    SessionLimit,
}

impl RefusalReason {
    /// The reason as the label of a metric: `malformed`, `several_tokens`, `not_verified`, `not_live`, `no_such_user`
    /// or `session_limit`.
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

/// Receives the events of one manager and of its store.
///
/// The hook is set when the manager is built, after the store got a clone of the listener.
#[derive(Clone, Default)]
pub(super) struct Listener(Arc<OnceLock<Box<Hook>>>);

pub(super) type Hook = dyn Fn(&Event<'_>) + Send + Sync;

impl Listener {
    /// Sets the hook.
    pub(super) fn set(&self, hook: Box<Hook>) {
        let _the_first_one_stays = self.0.set(hook);
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        #[cfg(feature = "tracing")]
        super::trace::event(event);
        let Some(hook) = self.0.get() else { return };
        if thread::panicking() {
            // A second panic would abort the process.
            let _panic = catch_unwind(AssertUnwindSafe(|| hook(event)));
        } else {
            hook(event);
        }
    }

    /// Reports a failed store call that never returned an error.
    pub(super) fn store_failed(
        &self,
        operation: &'static str,
        user_id: &str,
        token_id: Option<&TokenId>,
        error: &Error,
    ) {
        self.tell(&Event::Failed {
            operation,
            user_id: Some(user_id),
            token_id,
            error,
        });
    }

    /// Reports a failure of the user loader.
    pub(super) fn load_failed(&self, user_id: &str, error: &Error) {
        self.tell(&Event::Failed {
            operation: "load_user",
            user_id: Some(user_id),
            token_id: None,
            error,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    /// Reports an event on drop, as a change does when its caller is dropped.
    struct Report(Listener);

    impl Drop for Report {
        fn drop(&mut self) {
            self.0
                .load_failed("al", &Error::new(ErrorKind::LoadUser, "x"));
        }
    }

    /// A second panic while the first one unwinds would abort the process.
    #[test]
    fn a_hook_that_panics_while_its_task_unwinds_aborts_nothing() {
        let listener = Listener::default();
        listener.set(Box::new(|_| panic!("the hook panics, as it was told")));
        let unwind = catch_unwind(AssertUnwindSafe(|| {
            let _report = Report(listener);
            panic!("the first panic");
        }));
        let panic = unwind.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the first panic"));
    }
}
