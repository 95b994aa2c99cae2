//! Logins, which are undone if the token does not reach the caller.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::{
    TokenManager, TokenOptions,
    background::spawn,
    event::EventKind,
    limit::session_limit,
    metadata,
    sessions::{Change, Done, Sessions, Subject},
    types::check_ttl,
    undo::{Fate, Undo, UndoOnDrop, Undos, until_undone},
};
use crate::{
    Error, ErrorKind, Scopes, TokenId, jitter,
    store::{Created, NewSession, SessionLimit},
};

/// After this time a login that failed within the default deadline can no longer take effect: it is longer than a
/// server keeps the transaction of a disconnected client open. (With a longer deadline the lock on the row of the
/// session makes the undo wait for that transaction.)
const LATE_LOGIN_DELAY: Duration = Duration::from_secs(5);

impl<D> TokenManager<D> {
    /// The session that a login with these options starts, and the limit that it keeps.
    pub(super) fn new_session(
        &self,
        options: &TokenOptions,
    ) -> Result<(NewSession, Option<SessionLimit>), Error> {
        let defaults = &self.inner;
        let limit = match options.limit {
            Some(limit) => limit
                .map(|limit| session_limit(limit, ErrorKind::InvalidInput))
                .transpose()?,
            None => defaults.limit,
        };
        let max_lifetime = options.max_lifetime.map(check_ttl).transpose()?;
        let scopes = Scopes::new(&options.scopes)?;
        let new = NewSession {
            ttl: check_ttl(options.ttl.unwrap_or(defaults.token_ttl))?,
            max_lifetime: max_lifetime.or(defaults.max_lifetime),
            metadata: Some(metadata::encode(&options.metadata, &scopes)?),
        };
        Ok((new, limit))
    }
}

/// A session that is about to begin.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) sessions: Sessions,
    pub(super) undos: Arc<Undos>,
    pub(super) user_id: Arc<str>,
    pub(super) token_id: TokenId,
}

impl Login {
    /// Creates the session. If the caller is dropped, or the outcome is unknown because of a fault, a panic or an
    /// abandoned call, the session is ended in the background.
    pub(super) async fn run(
        self,
        new: NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        let (sessions, user_id) = (self.sessions.clone(), Arc::clone(&self.user_id));
        let (token_id, work) = (self.token_id, self.create(new, limit));
        let creating = sessions.run_to_completion("create", user_id, Some(token_id), work);
        Ok(creating.await?.claim())
    }

    async fn create(
        self,
        new: NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Unclaimed, Error> {
        // Before the call, which may end by being dropped.
        let mut undo = UndoOnDrop::new(self);
        let Login {
            sessions,
            user_id,
            token_id,
            ..
        } = &undo.write;
        match sessions.store.create(user_id, token_id, &new, limit).await {
            Ok(created) => {
                let evictions = created.evicted.iter().map(|(token_id, session)| {
                    let token_id = *token_id;
                    let metadata = Some(session.metadata());
                    let change = Change::Evicted(Subject { token_id, metadata });
                    sessions.done(Arc::clone(user_id), change)
                });
                let evictions = evictions.collect();
                undo.fate = Fate::Done;
                Ok(Unclaimed {
                    undo,
                    evictions,
                    created,
                })
            }
            Err(error) => {
                undo.failed(&error);
                Err(error)
            }
        }
    }

    /// Ends the session. Returns whether it was live, or `None` if all attempts fail.
    async fn end(&self) -> Option<bool> {
        let store = &self.sessions.store;
        let end = || store.delete(&self.user_id, &self.token_id);
        until_undone(end, |abandoned| self.undo_failed(abandoned)).await
    }

    fn undo_failed(&self, error: &Error) {
        let (user_id, token_id) = (Some(&*self.user_id), Some(&self.token_id));
        let listener = &self.sessions.listener;
        listener.failed("delete", user_id, token_id, error);
    }
}

impl Undo for Login {
    /// Ends the session in the background: nobody has its token. It is reported as a failure if too many others are
    /// being ended.
    fn undo(self, runtime: &Handle, is_done: bool) {
        let Some(permit) = self.undos.permit(is_done) else {
            let message = "a login is not undone: too many others are being undone";
            self.undo_failed(&Error::new(ErrorKind::Unavailable, message));
            return;
        };
        spawn(runtime, async move {
            let _permit = permit;
            let was_live = self.end().await;
            // The store may not have been done with a login that failed, and a repeated call cannot tell what it ended.
            if !is_done && was_live.is_some() {
                sleep(LATE_LOGIN_DELAY + jitter::up_to(LATE_LOGIN_DELAY)).await;
                self.end().await;
            }
        });
    }
}

/// A created session that its caller has not claimed yet.
///
/// The order of the fields is that of their drop: the undo begins before the hooks hear of the evictions, because
/// they may panic.
struct Unclaimed {
    undo: UndoOnDrop<Login>,
    evictions: Vec<Done>,
    created: Created,
}

impl Unclaimed {
    fn claim(self) -> Created {
        let Self {
            mut undo,
            evictions,
            created,
        } = self;
        drop(evictions);
        let login = &undo.write;
        let kind = EventKind::LoggedIn {
            user_id: &login.user_id,
            token_id: &login.token_id,
            expires_at: created.session.expires_at,
        };
        let metadata = created.session.metadata.as_deref().unwrap_or_default();
        login.sessions.listener.tell(kind, Some(metadata));
        // Only now: the session is also ended if a hook panics.
        undo.fate = Fate::Settled;
        created
    }
}
