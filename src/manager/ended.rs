//! Waiting for the end of a session.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout};

use super::{TokenManager, check::accept};
use crate::{store::Checked, token::TokenIds};

/// The minimum time between two checks of a session.
const MIN_PAUSE: Duration = Duration::from_millis(20);

impl<D> TokenManager<D> {
    /// Waits until a session has ended, or its token was replaced and its grace is over. While the store fails, only the
    /// absolute end of the session counts.
    pub(crate) async fn until_ended(&self, user_id: &str, ids: TokenIds) {
        let user_id: Arc<str> = user_id.into();
        // The absolute end is known without the store.
        let mut end: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            // Before the check, so that no change after it is missed.
            let changed = self.inner.sessions.store.changed(&user_id);
            if end.is_some_and(|end| end <= asked) {
                return;
            }
            let mut pause = self.inner.revocation_poll;
            match self
                .look_up(&user_id, &ids.session)
                .wait()
                .await
                .map(|checked| accept(ids, checked))
            {
                Ok(Err(_)) => return,
                Ok(Ok(Checked { now, session, .. })) => {
                    let left = |time: SystemTime| time.duration_since(now).unwrap_or_default();
                    let usable_until = session.usable_until(&ids.token);
                    for end in usable_until.into_iter().chain([session.expires_at]) {
                        pause = pause.min(left(end));
                    }
                    end = session
                        .ends_at
                        .and_then(|time| asked.checked_add(left(time)));
                }
                Err(_) => {
                    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
                    tokio::time::sleep(pause.min(left.unwrap_or(pause)).max(MIN_PAUSE)).await;
                    continue;
                }
            }
            // A change soon after the last one waits, so that a user whose sessions change often costs few checks.
            tokio::time::sleep(MIN_PAUSE.min(pause.max(Duration::from_millis(1)))).await;
            let _ = timeout(pause.saturating_sub(MIN_PAUSE), changed).await;
        }
    }
}
