//! Logins, which are undone if the token does not reach the caller.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use super::{
    Event,
    background::{spawn, unless_abandoned},
    sessions::{Change, Done, Sessions},
};
use crate::{
    Error, ErrorKind, TokenId, jitter,
    store::{Created, NewSession, SessionLimit},
};

/// The maximum number of undos in flight of each kind.
const MAX_UNDOS: usize = 1024;
/// The maximum number of attempts to undo a login.
const UNDO_ATTEMPTS: u32 = 5;
/// The backoff after the first attempt, without jitter; each further backoff is four times as long.
const UNDO_PAUSE: Duration = Duration::from_millis(70);
/// After this time a login that failed within the default deadline can no longer take effect: it is longer than a server
/// keeps the transaction of a disconnected client open. (With a longer deadline the lock on the row of the session makes
/// the undo wait for that transaction.)
const LATE_LOGIN_DELAY: Duration = Duration::from_secs(5);

/// The permits of a manager for undos in flight.
///
/// An error does not tell whether the store got the call, so every login that fails is undone. In an outage these fill
/// their places for as long as their attempts last; the sessions that are known to have started have places of their
/// own.
pub(super) struct Undos {
    started: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
}

impl Undos {
    pub(super) fn new() -> Self {
        Self {
            started: Arc::new(Semaphore::new(MAX_UNDOS)),
            unknown: Arc::new(Semaphore::new(MAX_UNDOS)),
        }
    }

    /// A permit to undo a write that is known to be done, or may be done; `None` if too many are being undone.
    pub(super) fn permit(&self, is_done: bool) -> Option<OwnedSemaphorePermit> {
        let undos = if is_done {
            &self.started
        } else {
            &self.unknown
        };
        Arc::clone(undos).try_acquire_owned().ok()
    }
}

/// Calls a store until it answers, with backoffs, or returns `None` if all attempts fail. The store has reported its
/// errors; `report` gets those of abandoned calls.
pub(super) async fn until_undone<T, F: Future<Output = Result<T, Error>>>(
    call: impl Fn() -> F,
    report: impl Fn(&Error),
) -> Option<T> {
    let mut pause = UNDO_PAUSE;
    for attempt in 1..=UNDO_ATTEMPTS {
        match unless_abandoned(call()).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(_)) => {}
            Err(abandoned) => report(&abandoned),
        }
        if attempt < UNDO_ATTEMPTS {
            sleep(pause + jitter::up_to(pause)).await;
            pause *= 4;
        }
    }
    None
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
        } = &undo.login;
        match sessions.store.create(user_id, token_id, &new, limit).await {
            Ok(created) => {
                let evictions = created.evicted.iter().map(|(evicted, _)| {
                    sessions.done(Arc::clone(user_id), Change::Evicted(*evicted))
                });
                let evictions = evictions.collect();
                undo.session = Fate::Started;
                Ok(Unclaimed {
                    undo,
                    evictions,
                    created,
                })
            }
            Err(error) => {
                if !error.is_fault() {
                    undo.session = Fate::Settled;
                }
                Err(error)
            }
        }
    }

    /// Ends the session in the background: nobody has its token. It is reported as a failure if too many others are
    /// being ended.
    fn undo(self, runtime: &Handle, is_started: bool) {
        let Some(permit) = self.undos.permit(is_started) else {
            let message = "a login is not undone: too many others are being undone";
            self.undo_failed(&Error::new(ErrorKind::Unavailable, message));
            return;
        };
        spawn(runtime, async move {
            let _permit = permit;
            let was_live = self.end().await;
            // The store may not have been done with a login that failed, and a repeated call cannot tell what it ended.
            if !is_started && was_live.is_some() {
                sleep(LATE_LOGIN_DELAY + jitter::up_to(LATE_LOGIN_DELAY)).await;
                self.end().await;
            }
        });
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

/// A login whose token nobody has yet; dropping it ends the session, unless that is settled.
struct UndoOnDrop {
    login: Login,
    session: Fate,
    /// `None` outside of a runtime, where the login runs in the caller.
    runtime: Option<Handle>,
}

/// What is known about the session of a login.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    Started,
    /// It was refused, or the caller gets its token.
    Settled,
}

impl UndoOnDrop {
    fn new(login: Login) -> Self {
        Self {
            login,
            session: Fate::Unknown,
            runtime: Handle::try_current().ok(),
        }
    }
}

impl Drop for UndoOnDrop {
    fn drop(&mut self) {
        if let Some(runtime) = &self.runtime
            && self.session != Fate::Settled
        {
            let is_started = self.session == Fate::Started;
            self.login.clone().undo(runtime, is_started);
        }
    }
}

/// A created session that its caller has not claimed yet.
///
/// The order of the fields is that of their drop: the undo begins before the hook hears of the evictions, because it
/// may panic.
struct Unclaimed {
    undo: UndoOnDrop,
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
        let login = &undo.login;
        login.sessions.listener.tell(&Event::LoggedIn {
            user_id: &login.user_id,
            token_id: &login.token_id,
            expires_at: created.session.expires_at,
        });
        // Only now: the session is also ended if the hook panics.
        undo.session = Fate::Settled;
        created
    }
}
