//! Sliding expiry: sessions that are used are renewed, in the background.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, time::timeout};

use super::{Event, TokenManager, background::spawn};
use crate::{Error, ErrorKind, TokenId, User, store::SessionChange, user::TokenState};

/// A renewal that takes longer is given up, so that a later request may try again.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sessions whose renewal is under way.
#[derive(Default)]
pub(super) struct Renewals(Mutex<HashSet<TokenId>>);

impl Renewals {
    fn running(&self) -> MutexGuard<'_, HashSet<TokenId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A renewal that is under way, until this is dropped.
struct Renewal<D> {
    manager: TokenManager<D>,
    user_id: Arc<str>,
    token_id: TokenId,
    change: SessionChange,
}

impl<D: Send + Sync + 'static> TokenManager<D> {
    /// Renews the session of a user that was just checked, for as long as it was last good for, if less than
    /// `below` remains of it and no renewal is under way.
    pub(crate) fn renew_below(&self, below: Duration, user: &User<D>) {
        let Some(token) = user.token() else { return };
        // Who calls a service outside of a runtime gets no renewal, which is no reason to panic.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(ttl) = due(token, below) else { return };
        if !self.inner.renewals.running().insert(token.id) {
            return;
        }
        // Whatever the request itself makes of its session stands: a refresh for longer or shorter, a logout.
        let change = SessionChange {
            if_version: Some(token.version()),
            ..SessionChange::refresh(ttl)
        };
        let renewal = Renewal {
            manager: self.clone(),
            user_id: user.id().into(),
            token_id: token.id,
            change,
        };
        spawn(&runtime, renewal.run());
    }
}

/// For how long to renew a session, if it is time for that.
fn due(token: &TokenState, below: Duration) -> Option<Duration> {
    let ttl = token.renewable()?;
    // Below the whole ttl would be at each request.
    let below = if below < ttl { below } else { ttl / 2 };
    (token.remaining < below).then_some(ttl)
}

impl<D> Renewal<D> {
    async fn run(self) {
        let sessions = &self.manager.inner.sessions;
        let (user_id, change) = (Arc::clone(&self.user_id), self.change.clone());
        let renewing = sessions.clone().update(user_id, self.token_id, change);
        // If it fails, then a later request tries again, or nobody uses the session any more.
        if timeout(PATIENCE, renewing).await.is_err() {
            let message = format!("the session was not renewed within {PATIENCE:?}");
            sessions.listener.tell(&Event::Failed {
                operation: "update",
                user_id: Some(&self.user_id),
                token_id: Some(&self.token_id),
                error: &Error::new(ErrorKind::Timeout, message),
            });
        }
    }
}

impl<D> Drop for Renewal<D> {
    fn drop(&mut self) {
        let mut running = self.manager.inner.renewals.running();
        running.remove(&self.token_id);
    }
}
