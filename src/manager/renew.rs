//! Sliding expiry: sessions that are used are renewed, in the background.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::TokenManager;
use crate::{TokenId, User};

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
}

impl<D: Send + Sync + 'static> TokenManager<D> {
    /// Renews the session of a user that was just checked, for as long as it was last good for, if less than
    /// `below` remains of it and no renewal is under way.
    pub(crate) fn renew_below(&self, below: Duration, user: &User<D>) {
        let Some(token) = user.token() else { return };
        let Some(ttl) = token.renewable() else { return };
        // Where the threshold is longer than sessions live, half of that has to do.
        if token.remaining >= below.min(ttl / 2) {
            return;
        }
        if !self.inner.renewals.running().insert(token.id) {
            return;
        }
        let renewal = Renewal {
            manager: self.clone(),
            token_id: token.id,
        };
        tokio::spawn(renewal.run(user.clone(), ttl));
    }
}

impl<D> Renewal<D> {
    async fn run(self, user: User<D>, ttl: Duration) {
        let (manager, token_id) = (&self.manager, &self.token_id);
        // If it fails, then a later request tries again, or nobody uses the session any more.
        let _ = manager.refresh_session(user.id(), token_id, ttl).await;
    }
}

impl<D> Drop for Renewal<D> {
    fn drop(&mut self) {
        let mut running = self.manager.inner.renewals.running();
        running.remove(&self.token_id);
    }
}
