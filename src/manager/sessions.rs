//! Changes of sessions and their events. A change runs to completion even if its caller is dropped.

use std::sync::Arc;

use bytes::Bytes;

use super::{TokenManager, background, event::EventKind, listener::Listener};
use crate::{
    Error, RefusalReason, TokenId,
    store::{ErasedStore, SessionChange},
    token::{ParsedToken, check_user_id},
};

/// The store and the listener for the events of its sessions.
#[derive(Clone)]
pub(super) struct Sessions {
    pub(super) store: Arc<dyn ErasedStore>,
    pub(super) listener: Listener,
}

impl Sessions {
    /// Changes a session, and reports `event`. `false` if it is not live, or if a condition in `change` does not hold.
    pub(super) async fn change(
        self,
        user_id: Arc<str>,
        token_id: TokenId,
        change: SessionChange,
        event: Option<Change>,
    ) -> Result<bool, Error> {
        let updated = self.store.update(&user_id, &token_id, &change).await?;
        if updated.is_some()
            && let Some(event) = event
        {
            drop(self.done(user_id, event));
        }
        Ok(updated.is_some())
    }

    async fn delete(
        self,
        user_id: Arc<str>,
        token_id: TokenId,
        change: Change,
    ) -> Result<Option<Done>, Error> {
        let deleted = self.store.delete(&user_id, &token_id).await?;
        Ok(deleted.then(|| self.done(user_id, change)))
    }

    async fn delete_all(
        self,
        user_id: Arc<str>,
        kept: Option<TokenId>,
    ) -> Result<(u64, Done), Error> {
        let sessions = self.store.delete_all(&user_id, kept.as_ref()).await?;
        let change = Change::LoggedOutAll { kept, sessions };
        Ok((sessions, self.done(user_id, change)))
    }

    /// Ends a session, even if the caller is dropped; `change` tells why. Returns whether it was live.
    pub(super) async fn end(
        &self,
        user_id: Arc<str>,
        token_id: TokenId,
        change: Change,
    ) -> Result<bool, Error> {
        let work = self.clone().delete(Arc::clone(&user_id), token_id, change);
        let deleting = self.run_to_completion("delete", user_id, Some(token_id), work);
        Ok(deleting.await?.is_some())
    }

    /// Ends all sessions of a user, except `kept`, even if the caller is dropped; returns their number.
    pub(super) async fn end_all(
        &self,
        user_id: Arc<str>,
        kept: Option<TokenId>,
    ) -> Result<u64, Error> {
        let work = self.clone().delete_all(Arc::clone(&user_id), kept);
        let deleting = self.run_to_completion("delete_all", user_id, None, work);
        Ok(deleting.await?.0)
    }

    /// Runs work with one call of the store to its completion, even if the caller is dropped. If the call is abandoned,
    /// it is reported as a failure.
    pub(super) async fn run_to_completion<T: Send + 'static>(
        &self,
        operation: &'static str,
        user_id: Arc<str>,
        token_id: Option<TokenId>,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let listener = self.listener.clone();
        let report = move |error: &Error| {
            listener.failed(operation, Some(&user_id), token_id.as_ref(), error);
        };
        background::run_to_completion(work, report).await
    }

    pub(super) fn done(&self, user_id: Arc<str>, change: Change) -> Done {
        Done {
            listener: self.listener.clone(),
            user_id,
            change,
        }
    }
}

/// A change that the store has made. Dropping it reports the event, exactly once: in the caller or, if the caller was
/// dropped, in the task that completed the change.
pub(super) struct Done {
    listener: Listener,
    user_id: Arc<str>,
    change: Change,
}

pub(super) enum Change {
    Evicted(Subject),
    Refreshed(Subject),
    Authenticated(Subject),
    LoggedOut(Subject),
    Reused(Subject),
    LoggedOutAll {
        kept: Option<TokenId>,
        sessions: u64,
    },
}

/// The session that a change is about, with its metadata if they are known.
pub(super) struct Subject {
    pub(super) token_id: TokenId,
    pub(super) metadata: Option<Bytes>,
}

impl Drop for Done {
    fn drop(&mut self) {
        let user_id = &*self.user_id;
        let (kind, metadata) = match &self.change {
            Change::Evicted(Subject { token_id, metadata }) => {
                (EventKind::Evicted { user_id, token_id }, metadata)
            }
            Change::Refreshed(Subject { token_id, metadata }) => {
                (EventKind::Refreshed { user_id, token_id }, metadata)
            }
            Change::Authenticated(Subject { token_id, metadata }) => {
                (EventKind::Authenticated { user_id, token_id }, metadata)
            }
            Change::LoggedOut(Subject { token_id, metadata }) => {
                (EventKind::LoggedOut { user_id, token_id }, metadata)
            }
            Change::Reused(Subject { token_id, metadata }) => {
                (EventKind::Reused { user_id, token_id }, metadata)
            }
            Change::LoggedOutAll { kept, sessions } => {
                let (kept, sessions) = (kept.as_ref(), *sessions);
                let kind = EventKind::LoggedOutAll {
                    user_id,
                    kept,
                    sessions,
                };
                (kind, &None)
            }
        };
        self.listener.tell(kind, metadata.as_deref());
    }
}

impl<D> TokenManager<D> {
    /// Ends a session of a user, whose metadata may be known.
    pub(crate) async fn delete_session(
        &self,
        user_id: Arc<str>,
        token_id: TokenId,
        metadata: Option<Bytes>,
    ) -> Result<bool, Error> {
        let change = Change::LoggedOut(Subject { token_id, metadata });
        self.sessions().end(user_id, token_id, change).await
    }

    pub(super) async fn delete_all_but(
        &self,
        user_id: &str,
        kept: Option<&TokenId>,
    ) -> Result<u64, Error> {
        check_user_id(user_id)?;
        let sessions = self.sessions();
        sessions.end_all(user_id.into(), kept.copied()).await
    }

    /// Reports that a token was refused, and returns the reason.
    pub(super) fn report_refusal<T>(
        &self,
        token: &ParsedToken,
        reason: RefusalReason,
        metadata: Option<&[u8]>,
    ) -> Result<T, RefusalReason> {
        self.refused(
            Some((&token.user_id, Some(&token.ids.session))),
            reason,
            metadata,
        );
        Err(reason)
    }

    /// Reports a refusal; `claim` is the user id and the token id in the token, and `metadata` that of its session if
    /// it is live.
    pub(crate) fn refused(
        &self,
        claim: Option<(&str, Option<&TokenId>)>,
        reason: RefusalReason,
        metadata: Option<&[u8]>,
    ) {
        let (user_id, token_id) = claim.unzip();
        let kind = EventKind::Refused {
            user_id,
            token_id: token_id.flatten(),
            reason,
        };
        let listener = &self.inner.sessions.listener;
        listener.tell_in(self.context.as_deref(), kind, metadata);
    }
}
