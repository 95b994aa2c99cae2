use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    thread,
    time::SystemTime,
};

use crate::{Error, TokenId};

/// Something that happened to sessions, at this manager; for
/// [`TokenManagerBuilder::on_event`](crate::TokenManagerBuilder::on_event).
///
/// There is no token in it; a [`TokenId`] opens nothing.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A session began, and its token was returned to the caller.
    ///
    /// A login that was [undone](crate::TokenManager::set_token) is not reported.
    #[non_exhaustive]
    LoggedIn {
        /// Whose it is.
        user_id: &'a str,
        /// Its handle.
        token_id: &'a TokenId,
        /// When it expires unless it is refreshed.
        expires_at: SystemTime,
    },
    /// A login ended this session, to keep the session limit; also if the login was undone because its caller had
    /// gone away. After a fault, what the login ended is not known. Of more than 512 that
    /// end at once perhaps the first 512 only are reported.
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
    /// A live session was ended, or perhaps ended: if the store lost its first answer, then it cannot tell.
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
        /// Who the token says it is of; for [`RefusalReason::NotLive`] this may be anybody's claim. `None` if it says nothing.
        user_id: Option<&'a str>,
        /// Its handle, if it is a token.
        token_id: Option<&'a TokenId>,
        /// Why.
        reason: RefusalReason,
    },
    /// A call of the store or of the user loader failed: a fault, or a misconfiguration such as a missing table.
    ///
    /// Each failure is reported once, also if several callers get the error, and if none does: of a renewal in the
    /// background, of a poll by [`revoked`](crate::Session::revoked). A write that failed may have been done all the
    /// same; in an audit log, a failed `delete` or `delete_all` is a logout whose outcome is unknown.
    #[non_exhaustive]
    Failed {
        /// What was called: a method of [`SessionStore`](crate::SessionStore) by its name, or `load_user` for the user
        /// loader and for a detail that cannot be cached.
        operation: &'static str,
        /// The user that the call was about. `None` for one about the store as a whole.
        user_id: Option<&'a str>,
        /// The session that the call was about. `None` for one about no session in particular.
        token_id: Option<&'a TokenId>,
        /// What the caller got, if there was one.
        error: &'a Error,
    },
}

/// Why a token was not accepted, or a login refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// It is no token, or two cookies disagree.
    Malformed,
    /// The request has more than one token: in two sources, or twice in one.
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

impl RefusalReason {
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

/// Receives the events of one manager and of its store. The hook is set when the manager is built, after the store was
/// given a clone of this.
#[derive(Clone, Default)]
pub(super) struct Listener(Arc<OnceLock<Box<Hook>>>);

pub(super) type Hook = dyn Fn(&Event<'_>) + Send + Sync;

impl Listener {
    /// Decides who receives the events.
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

    /// Reports when it is dropped, as a change does whose caller has gone away.
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
