//! Logins: a session whose token does not reach the caller is ended again.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    Event,
    background::{see_through, spawn},
    sessions::Sessions,
};
use crate::{
    Error, TokenId, jitter,
    store::{Created, NewSession, SessionLimit},
};

/// How often the undo of a login is tried before it is given up.
const UNDO_ATTEMPTS: u32 = 5;
/// The pause after the first attempt; the next ones are four times as long each.
const UNDO_PAUSE: Duration = Duration::from_millis(100);

/// A session that is about to begin.
pub(super) struct Login {
    pub(super) sessions: Sessions,
    pub(super) user_id: Arc<str>,
    pub(super) token_id: TokenId,
}

impl Login {
    /// Starts the session. If the caller goes away, or if a fault leaves it open whether the store has started the
    /// session, then the session is ended in the background.
    pub(super) async fn run(
        self,
        new: NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        let created = see_through(async move {
            let (user_id, token_id) = (&self.user_id, &self.token_id);
            let creating = self.sessions.store.create(user_id, token_id, &new, limit);
            match creating.await {
                Ok(created) => Ok(Unclaimed(Some(Started {
                    login: self,
                    created,
                    runtime: Handle::try_current().ok(),
                }))),
                Err(error) => {
                    if error.is_fault()
                        && let Ok(runtime) = Handle::try_current()
                    {
                        spawn(&runtime, self.undo(false));
                    }
                    Err(error)
                }
            }
        });
        Ok(created.await?.claim())
    }

    /// Ends the session, whose token nobody has. If it is not certain that it was `started`, then it is looked for twice: a
    /// store may still have been about to start it.
    async fn undo(self, started: bool) {
        let mut pause = UNDO_PAUSE;
        for attempt in 1..=UNDO_ATTEMPTS {
            let store = &self.sessions.store;
            // Whether it was there, if the store can tell.
            let deleted = store.delete(&self.user_id, &self.token_id).await.ok();
            if deleted == Some(true) || deleted.is_some() && (started || attempt > 1) {
                return;
            }
            if attempt < UNDO_ATTEMPTS {
                // Many logins may fail at once.
                tokio::time::sleep(pause / 2 + jitter::up_to(pause / 2)).await;
                pause *= 4;
            }
        }
    }
}

/// A session that has started, with what that takes to undo.
struct Started {
    login: Login,
    created: Created,
    /// `None` outside of a runtime, where the caller cannot go away in between.
    runtime: Option<Handle>,
}

impl Started {
    fn report_evicted(&self) {
        let Sessions { listener, .. } = &self.login.sessions;
        for (token_id, _) in &self.created.evicted {
            let user_id = &*self.login.user_id;
            listener.tell(&Event::Evicted { user_id, token_id });
        }
    }
}

/// A session that has started, until its caller takes it; if that does not happen, then it is ended.
struct Unclaimed(Option<Started>);

impl Unclaimed {
    fn claim(mut self) -> Created {
        let started = self.0.take().expect("nobody else takes it");
        started.report_evicted();
        let Login {
            sessions,
            user_id,
            token_id,
        } = &started.login;
        sessions.listener.tell(&Event::LoggedIn {
            user_id,
            token_id,
            expires_at: started.created.session.expires_at,
        });
        started.created
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(started) = self.0.take() {
            started.report_evicted();
            if let Some(runtime) = started.runtime {
                spawn(&runtime, started.login.undo(true));
            }
        }
    }
}
