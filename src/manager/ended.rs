//! Waiting for the end of a session.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout};

use super::TokenManager;
use crate::{TokenId, store::Checked};

/// The minimum time between two checks of a session.
const MIN_PAUSE: Duration = Duration::from_millis(1);

impl<D> TokenManager<D> {
    /// Waits until a session has ended. While the store fails, only the absolute end of the session counts.
    pub(crate) async fn until_ended(&self, user_id: &str, token_id: &TokenId) {
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
            match self.look_up(&user_id, token_id).wait().await {
                Ok(None) => return,
                Ok(Some(Checked { now, session, .. })) => {
                    let left = |time: SystemTime| time.duration_since(now).unwrap_or_default();
                    pause = pause.min(left(session.expires_at));
                    end = session
                        .ends_at
                        .and_then(|time| asked.checked_add(left(time)));
                }
                Err(_) => {
                    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
                    pause = pause.min(left.unwrap_or(pause));
                }
            }
            // A change soon after the last one waits, so that a user whose sessions change often costs few checks.
            tokio::time::sleep(MIN_PAUSE).await;
            let _ = timeout(pause.saturating_sub(MIN_PAUSE), changed).await;
        }
    }
}
