//! Sliding expiry: background renewal of sessions in use.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{
    TokenManager,
    background::{spawn, timeout},
    check::Authenticated,
    sessions::Change,
    state::SessionState,
};
use crate::{Error, ErrorKind, TokenId, store::SessionChange, token::TokenIds};

/// The time limit of a renewal, after which a later request can retry.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The sessions with a renewal in flight.
#[derive(Default)]
pub(super) struct Renewals(Mutex<HashSet<TokenId>>);

impl Renewals {
    fn running(&self) -> MutexGuard<'_, HashSet<TokenId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A renewal in flight; dropping it allows another renewal of the session.
struct Renewal<D> {
    manager: TokenManager<D>,
    user_id: Arc<str>,
    token_id: TokenId,
    change: SessionChange,
}

impl<D: Send + Sync + 'static> TokenManager<D> {
    /// Renews a session that was just checked, if its token expires in less than `below` and no renewal is in flight.
    /// The renewal reuses the last ttl of the session.
    pub(crate) fn renew_below(&self, below: Duration, checked: &Authenticated<D>) {
        let Authenticated {
            user,
            session: state,
        } = checked;
        // A service that is called outside of a runtime skips the renewal instead of panicking.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(ttl) = due(state, below) else { return };
        let TokenIds { session, token } = state.ids;
        if !self.inner.renewals.running().insert(session) {
            return;
        }
        // A refresh or logout by the request itself takes precedence over the renewal.
        let change = SessionChange {
            if_token: Some(token),
            if_version: Some(state.version()),
            ..SessionChange::refresh(ttl)
        };
        let renewal = Renewal {
            manager: self.clone(),
            user_id: user.id().into(),
            token_id: session,
            change,
        };
        spawn(&runtime, renewal.run());
    }
}

/// The ttl of the renewal, if the session is due for one.
fn due(session: &SessionState, below: Duration) -> Option<Duration> {
    let ttl = session.renewable()?;
    // A threshold of the whole ttl would renew with each request.
    let below = if below < ttl { below } else { ttl / 2 };
    (session.token().remaining < below).then_some(ttl)
}

impl<D> Renewal<D> {
    async fn run(self) {
        let sessions = &self.manager.inner.sessions;
        let (user_id, change) = (Arc::clone(&self.user_id), self.change.clone());
        let event = Some(Change::Refreshed(self.token_id));
        let renewing = sessions
            .clone()
            .change(user_id, self.token_id, change, event);
        // No retry after a failure: the next request with the session starts another renewal.
        if timeout(RENEWAL_TIMEOUT, renewing).await.is_err() {
            let message = format!("the session was not renewed within {RENEWAL_TIMEOUT:?}");
            let error = Error::new(ErrorKind::Timeout, message);
            let (user_id, token_id) = (&self.user_id, Some(&self.token_id));
            sessions
                .listener
                .failed("update", Some(user_id), token_id, &error);
        }
    }
}

impl<D> Drop for Renewal<D> {
    fn drop(&mut self) {
        let mut running = self.manager.inner.renewals.running();
        running.remove(&self.token_id);
    }
}
