//! Replacements of the token of a session, which are undone if the new token does not reach the caller.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{
    background::spawn,
    event::EventKind,
    sessions::{Change, Done, Sessions, Subject},
    undo::{Fate, Undo, UndoOnDrop, Undos, until_undone},
};
use crate::{
    Error, ErrorKind, TokenId,
    store::{Checked, Lookup, NewToken, SessionChange, Updated},
    token::TokenIds,
};

/// A replacement of the token of a session by `new`.
#[derive(Clone)]
pub(super) struct Rotate {
    pub(super) sessions: Sessions,
    pub(super) undos: Arc<Undos>,
    pub(super) user_id: Arc<str>,
    pub(super) ids: TokenIds,
    pub(super) new: TokenId,
    /// The metadata that the session has after it.
    pub(super) metadata: Bytes,
    /// Whether the replacement notes an authentication, or changes metadata or scopes.
    pub(super) gain: Gain,
}

/// What a session gets by a replacement, besides another token.
#[derive(Clone, Copy)]
pub(super) struct Gain {
    pub(super) authenticated: bool,
    pub(super) metadata: bool,
}

impl Rotate {
    /// Replaces the token. `None` if the session is not live or the token is not its current one. If the outcome is
    /// unknown because of a fault, a panic or an abandoned call, the replacement is undone in the background.
    pub(super) async fn run(self, change: SessionChange) -> Result<Option<Unclaimed>, Error> {
        let mut undo = UndoOnDrop::new(self);
        let Rotate {
            sessions,
            user_id,
            ids,
            ..
        } = &undo.write;
        match sessions.store.update(user_id, &ids.session, &change).await {
            Ok(Some(updated)) => {
                let ended = Change::LoggedOutAll {
                    kept: Some(ids.session),
                    sessions: updated.ended,
                };
                let ended = change
                    .end_others
                    .then(|| sessions.done(Arc::clone(user_id), ended));
                undo.fate = Fate::Done;
                Ok(Some(Unclaimed {
                    undo,
                    ended,
                    updated,
                }))
            }
            Ok(None) => {
                undo.fate = Fate::Settled;
                Ok(None)
            }
            Err(error) => {
                undo.failed(&error);
                Err(error)
            }
        }
    }
}

impl Rotate {
    /// Ends the session if the replacement was done; returns whether it was.
    async fn end(&self) -> Result<bool, Error> {
        let (store, user_id, session) = (&self.sessions.store, &self.user_id, &self.ids.session);
        let checked = Lookup::begin(store, user_id, *session).wait().await?;
        let is_done = |checked: Checked| *checked.session.current_token(session) == self.new;
        if !checked.is_some_and(is_done) {
            return Ok(false);
        }
        store.delete(user_id, session).await
    }
}

impl Undo for Rotate {
    /// Makes the replaced token the current one again: nobody has the new one. If the session has gained anything by
    /// the replacement, it is ended: whoever has only the old token must not have that.
    fn undo(self, runtime: &Handle, is_done: bool) {
        let failed = {
            let (sessions, user_id) = (self.sessions.clone(), Arc::clone(&self.user_id));
            let session = self.ids.session;
            move |error: &Error| {
                let listener = &sessions.listener;
                listener.failed("update", Some(&user_id), Some(&session), error);
            }
        };
        let Some(permit) = self.undos.permit(is_done) else {
            let message = "a replacement is not undone: too many others are being undone";
            failed(&Error::new(ErrorKind::Unavailable, message));
            return;
        };
        let change = SessionChange {
            if_token: Some(self.new),
            new_token: Some(NewToken::new(self.ids.token, Duration::ZERO)),
            ..SessionChange::default()
        };
        spawn(runtime, async move {
            let _permit = permit;
            if self.gain.authenticated || self.gain.metadata {
                if until_undone(|| self.end(), failed).await == Some(true) {
                    let ended = Change::LoggedOut(Subject {
                        token_id: self.ids.session,
                        metadata: Some(self.metadata),
                    });
                    drop(self.sessions.done(Arc::clone(&self.user_id), ended));
                }
                return;
            }
            let store = &self.sessions.store;
            let undo = || store.update(&self.user_id, &self.ids.session, &change);
            until_undone(undo, failed).await;
        });
    }
}

/// A replacement whose new token its caller has not claimed yet.
///
/// The order of the fields is that of their drop: the undo begins before the hooks hear of the sessions that have
/// ended, because they may panic.
pub(super) struct Unclaimed {
    undo: UndoOnDrop<Rotate>,
    ended: Option<Done>,
    updated: Updated,
}

impl Unclaimed {
    pub(super) fn claim(mut self) -> Updated {
        let Rotate {
            sessions,
            user_id,
            ids,
            metadata,
            gain,
            ..
        } = &self.undo.write;
        let (token_id, metadata) = (&ids.session, Some(&**metadata));
        let kind = EventKind::Replaced {
            user_id,
            token_id,
            expires_at: self.updated.expires_at,
        };
        sessions.listener.tell(kind, metadata);
        if gain.authenticated {
            let kind = EventKind::Authenticated { user_id, token_id };
            sessions.listener.tell(kind, metadata);
        }
        drop(self.ended.take());
        // Only now: it is also undone if a hook panics.
        self.undo.fate = Fate::Settled;
        self.updated
    }
}
