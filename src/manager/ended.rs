//! Waiting for the end of a session. All who wait for one share a task that watches it.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{TokenManager, check::accept};
use crate::{jitter, store::Checked, token::TokenIds};

/// The minimum time between two checks of a session.
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// The maximum time after which a check that failed is repeated.
const RETRY: Duration = Duration::from_secs(1);

/// The sessions that are watched, with what tells those who wait that one has ended.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<TokenIds, watch::Sender<bool>>>);

/// The watch over one session; dropping it ends the watch.
struct Watch<D> {
    manager: TokenManager<D>,
    user_id: Arc<str>,
    ids: TokenIds,
    ended: watch::Sender<bool>,
}

impl<D: Send + Sync + 'static> TokenManager<D> {
    /// Waits until a session has ended, or its token was replaced and its grace is over. While the store fails, only the
    /// absolute end of the session counts.
    pub(crate) async fn until_ended(&self, user_id: &Arc<str>, ids: TokenIds) {
        let mut ended = self.watch(user_id, ids);
        if ended.wait_for(|ended| *ended).await.is_err() {
            // The task has gone with the runtime of whoever was the first to wait.
            self.watch_session(user_id, ids).await;
        }
    }

    /// Joins those who wait for the end of a session. The first one begins to watch it.
    fn watch(&self, user_id: &Arc<str>, ids: TokenIds) -> watch::Receiver<bool> {
        match self.inner.watches.lock().entry(ids) {
            Entry::Occupied(watched) => watched.get().subscribe(),
            Entry::Vacant(vacant) => {
                let (sender, ended) = watch::channel(false);
                let watch = Watch {
                    manager: self.without_context(),
                    user_id: Arc::clone(user_id),
                    ids,
                    ended: sender.clone(),
                };
                vacant.insert(sender);
                // In no span, because it may outlive the request that was the first.
                tokio::spawn(watch.run());
                ended
            }
        }
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, HashMap<TokenIds, watch::Sender<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D> Watch<D> {
    /// Watches until the session has ended, or nobody waits for that.
    async fn run(self) {
        let mut ended = pin!(self.manager.watch_session(&self.user_id, self.ids));
        let mut abandoned = pin!(self.until_abandoned());
        let has_ended = poll_fn(|cx| match ended.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => abandoned.as_mut().poll(cx).map(|()| false),
        });
        if has_ended.await {
            self.ended.send_replace(true);
        }
    }

    async fn until_abandoned(&self) {
        loop {
            self.ended.closed().await;
            let mut watches = self.manager.inner.watches.lock();
            // Nobody can join while the lock is held.
            if self.ended.receiver_count() == 0 {
                watches.remove(&self.ids);
                return;
            }
        }
    }
}

impl<D> Drop for Watch<D> {
    fn drop(&mut self) {
        let mut watches = self.manager.inner.watches.lock();
        let is_own = |watched: &watch::Sender<bool>| watched.same_channel(&self.ended);
        if watches.get(&self.ids).is_some_and(is_own) {
            watches.remove(&self.ids);
        }
    }
}

impl<D> TokenManager<D> {
    /// Waits for the end of a session by checking it after each change, and from time to time.
    async fn watch_session(&self, user_id: &Arc<str>, ids: TokenIds) {
        // The absolute end is known without the store.
        let mut end: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            // Before the check, so that no change after it is missed.
            let changed = self.inner.sessions.store.changed(user_id);
            if end.is_some_and(|end| end <= asked) {
                return;
            }
            let mut pause = jittered(self.inner.revocation_poll);
            match self
                .look_up(user_id, &ids.session)
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
                    let pause = jittered(pause.min(RETRY)).min(left.unwrap_or(pause));
                    tokio::time::sleep(pause.max(MIN_PAUSE)).await;
                    continue;
                }
            }
            // A change soon after the last one waits, so that a user whose sessions change often costs few checks.
            tokio::time::sleep(MIN_PAUSE.min(pause.max(Duration::from_millis(1)))).await;
            let _ = timeout(pause.saturating_sub(MIN_PAUSE), changed).await;
        }
    }
}

/// Somewhat less, so that the checks of many sessions that begin at once are spread.
fn jittered(pause: Duration) -> Duration {
    pause - jitter::up_to(pause / 8)
}
