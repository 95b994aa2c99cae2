//! Sliding expiry: sessions that are used are renewed, in the background.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, time::timeout};

use super::{Event, TokenManager};
use crate::{Error, TokenId, User, store::SessionChange, user::TokenState};

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
            token_id: token.id,
            change,
        };
        runtime.spawn(renewal.run(user.clone()));
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
    async fn run(self, user: User<D>) {
        // If it fails, then a later request tries again, or nobody uses the session any more.
        let _ = timeout(PATIENCE, self.renew(user.id())).await;
    }

    async fn renew(&self, user_id: &str) -> Result<(), Error> {
        let (inner, token_id) = (&*self.manager.inner, &self.token_id);
        if inner.store.update(user_id, token_id, &self.change).await? {
            self.manager.tell(&Event::Refreshed { user_id, token_id });
        }
        Ok(())
    }
}

impl<D> Drop for Renewal<D> {
    fn drop(&mut self) {
        let mut running = self.manager.inner.renewals.running();
        running.remove(&self.token_id);
    }
}
