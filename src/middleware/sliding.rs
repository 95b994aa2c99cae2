use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{TokenId, TokenManager, User};

/// Renews sessions that are used, in the background.
#[derive(Debug)]
pub(super) struct Renewals {
    below: Duration,
    running: Mutex<HashSet<TokenId>>,
}

/// A renewal that runs.
struct Renewal {
    renewals: Arc<Renewals>,
    token_id: TokenId,
}

impl Renewals {
    pub(super) fn new(below: Duration) -> Self {
        Self {
            below,
            running: Mutex::default(),
        }
    }

    /// Renews the session of this user if little of it remains, unless that is under way.
    pub(super) fn renew_if_due<D: Send + Sync + 'static>(
        self: &Arc<Self>,
        manager: &TokenManager<D>,
        user: &User<D>,
    ) {
        let Some(token) = user.token() else { return };
        let Some(ttl) = token.renewable else { return };
        // Where the threshold is longer than sessions live, half of that has to do.
        if token.remaining >= self.below.min(ttl / 2) {
            return;
        }
        let Some(renewal) = self.begin(token.id) else {
            return;
        };
        tokio::spawn(renewal.run(manager.clone(), user.clone(), ttl));
    }

    fn begin(self: &Arc<Self>, token_id: TokenId) -> Option<Renewal> {
        self.running().insert(token_id).then(|| Renewal {
            renewals: Arc::clone(self),
            token_id,
        })
    }

    fn running(&self) -> MutexGuard<'_, HashSet<TokenId>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Renewal {
    async fn run<D>(self, manager: TokenManager<D>, user: User<D>, ttl: Duration) {
        let renewing = manager.refresh_user_token(user.id(), &self.token_id, ttl);
        // If it fails, then a later request tries again, or nobody uses the session any more.
        let _ = renewing.await;
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.renewals.running().remove(&self.token_id);
    }
}
