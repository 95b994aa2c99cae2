//! Sliding expiry and the time of the last request: background writes for sessions in use.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{
    TokenManager,
    background::{spawn, timeout},
    check::Authenticated,
    metadata,
    sessions::{Change, Subject},
    state::SessionState,
};
use crate::{Error, ErrorKind, TokenId, store::SessionChange, token::TokenIds};

/// The time limit of a renewal, after which a later request can retry.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(10);

/// When a request writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RenewalPolicy {
    /// Sessions with less than this time left are renewed.
    pub(crate) below: Option<Duration>,
    /// The time of a request is noted if the last one was noted this long ago.
    pub(crate) seen: Option<Duration>,
}

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
    metadata: Bytes,
    change: SessionChange,
}

impl<D: Send + Sync + 'static> TokenManager<D> {
    /// Renews a session that was just checked, if its token expires in less than `policy.below`, and notes the time if
    /// the last one was noted `policy.seen` ago; in one write, if no other one is in flight. The renewal reuses the
    /// last ttl of the session.
    pub(crate) fn renew(&self, policy: RenewalPolicy, checked: &Authenticated<D>) {
        let Authenticated {
            user,
            session: state,
        } = checked;
        // A service that is called outside of a runtime skips the renewal instead of panicking.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let ttl = policy.below.and_then(|below| due(state, below));
        let is_seen = policy
            .seen
            .is_some_and(|interval| state.is_seen_after(interval));
        if ttl.is_none() && !is_seen {
            return;
        }
        let TokenIds { session, token } = state.ids;
        if !self.inner.renewals.running().insert(session) {
            return;
        }
        // A refresh or logout by the request itself takes precedence over the renewal.
        let mut change = SessionChange {
            if_token: Some(token),
            if_version: Some(state.version()),
            ttl,
            ..SessionChange::default()
        };
        if is_seen {
            let metadata = state.record.metadata.clone();
            change.metadata = Some(metadata::with_seen_at(metadata.as_deref(), state.now));
            change.if_metadata = Some(metadata.unwrap_or_default());
        }
        let renewal = Renewal {
            manager: self.clone(),
            user_id: user.id().into(),
            token_id: session,
            metadata: state.record.metadata(),
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
        let sessions = self.manager.sessions();
        let (user_id, change) = (Arc::clone(&self.user_id), self.change.clone());
        let event = change.ttl.map(|_| {
            let (token_id, metadata) = (self.token_id, Some(self.metadata.clone()));
            Change::Refreshed(Subject { token_id, metadata })
        });
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
