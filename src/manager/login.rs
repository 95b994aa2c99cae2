//! Logins, which are undone if the token does not reach the caller.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    Event,
    background::{ABANDONED_CALL_TIMEOUT, run_to_completion, spawn},
    sessions::Sessions,
};
use crate::{
    Error, ErrorKind, TokenId, jitter,
    store::{Created, NewSession, SessionLimit},
};

/// The maximum number of logins of a manager that are being undone.
pub(super) const MAX_UNDOS: usize = 1024;
/// The maximum number of attempts to undo a login.
const UNDO_ATTEMPTS: u32 = 5;
/// The backoff after the first attempt, without jitter; each further backoff is four times as long.
const UNDO_PAUSE: Duration = Duration::from_millis(70);
/// After this time a failed login can no longer take effect: it is longer than a server keeps the transaction of a
/// disconnected client open.
const LATE_LOGIN_DELAY: Duration = Duration::from_secs(5);

/// A session that is about to begin.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) sessions: Sessions,
    /// One permit for each undo in flight.
    pub(super) undos: Arc<Semaphore>,
    pub(super) user_id: Arc<str>,
    pub(super) token_id: TokenId,
}

impl Login {
    /// Creates the session. If the caller is dropped, or a fault leaves the outcome unknown, the session is ended in
    /// the background.
    pub(super) async fn run(
        self,
        new: NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        let created = run_to_completion(async move {
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
                        self.undo(&runtime, false);
                    }
                    Err(error)
                }
            }
        });
        Ok(created.await?.claim())
    }

    /// Ends the session in the background: nobody has its token. It is reported as a failure if too many others are
    /// being ended.
    fn undo(self, runtime: &Handle, started: bool) {
        let Ok(permit) = Arc::clone(&self.undos).try_acquire_owned() else {
            let message = "a login is not rolled back: too many rollbacks are in flight";
            self.sessions.listener.tell(&Event::Failed {
                operation: "delete",
                user_id: Some(&self.user_id),
                token_id: Some(&self.token_id),
                error: &Error::new(ErrorKind::Unavailable, message),
            });
            return;
        };
        spawn(runtime, async move {
            let _permit = permit;
            let was_live = self.end().await;
            // The store may not have been done with a login that failed, and a repeated call cannot tell what it ended.
            if !started && was_live.is_some() {
                sleep(LATE_LOGIN_DELAY + jitter::up_to(LATE_LOGIN_DELAY)).await;
                self.end().await;
            }
        });
    }

    /// Ends the session. Returns whether it was live, or `None` if all attempts fail.
    async fn end(&self) -> Option<bool> {
        let mut pause = UNDO_PAUSE;
        for attempt in 1..=UNDO_ATTEMPTS {
            let store = &self.sessions.store;
            let deleting = store.delete(&self.user_id, &self.token_id);
            if let Ok(Ok(was_live)) = timeout(ABANDONED_CALL_TIMEOUT, deleting).await {
                return Some(was_live);
            }
            if attempt < UNDO_ATTEMPTS {
                sleep(pause + jitter::up_to(pause)).await;
                pause *= 4;
            }
        }
        None
    }
}

/// A created session, with what is needed to undo it.
struct Started {
    login: Login,
    created: Created,
    /// `None` outside of a runtime, where the login runs in the caller.
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

/// A created session that its caller has not claimed yet; dropping it undoes the login.
struct Unclaimed(Option<Started>);

impl Unclaimed {
    fn claim(mut self) -> Created {
        // Not yet taken, so that the session is ended if the hook panics.
        let started = self.0.as_ref().expect("nobody else takes it");
        started.report_evicted();
        let Login {
            sessions,
            user_id,
            token_id,
            ..
        } = &started.login;
        sessions.listener.tell(&Event::LoggedIn {
            user_id,
            token_id,
            expires_at: started.created.session.expires_at,
        });
        let started = self.0.take().expect("nobody else takes it");
        started.created
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(started) = self.0.take() {
            // Before the events: their hook may panic.
            if let Some(runtime) = &started.runtime {
                started.login.clone().undo(runtime, true);
            }
            started.report_evicted();
        }
    }
}
