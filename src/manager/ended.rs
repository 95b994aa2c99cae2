//! Waiting for the end of a session. Streams of one session share a task that watches it.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::{
    runtime::{self, Handle},
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{TokenManager, check::accept};
use crate::{jitter, store::Checked, token::TokenIds};

/// The minimum time between two checks of a session.
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// The sessions that are watched, each by a task of every runtime with streams: a task runs only as long as its runtime
/// does.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<(runtime::Id, TokenIds), Arc<Watched>>>);

/// What those who wait for the end of a session share with its watch.
#[derive(Default)]
struct Watched {
    ended: watch::Sender<bool>,
    /// Tells the watch that somebody has joined, whose session may have ended before.
    joined: Notify,
}

/// The watch over one session; dropping it ends the watch.
struct Watch<D> {
    manager: TokenManager<D>,
    user_id: Arc<str>,
    key: (runtime::Id, TokenIds),
    watched: Arc<Watched>,
}

impl<D: Send + Sync + 'static> TokenManager<D> {
    /// Waits until a session has ended, or its token was replaced and its grace is over. While the store fails, only
    /// the absolute end of the session counts.
    pub(crate) async fn until_ended(&self, user_id: &Arc<str>, ids: TokenIds) {
        let mut ended = self.watch(user_id, ids);
        if ended.wait_for(|ended| *ended).await.is_err() {
            // The runtime is shutting down.
            self.watch_session(user_id, ids, &Notify::new()).await;
        }
    }

    /// Joins those who wait for the end of a session. The first one begins to watch it.
    fn watch(&self, user_id: &Arc<str>, ids: TokenIds) -> watch::Receiver<bool> {
        let runtime = Handle::current();
        let key = (runtime.id(), ids);
        let watched = match self.inner.watches.lock().entry(key) {
            Entry::Occupied(watched) => {
                let watched = watched.get();
                watched.joined.notify_one();
                return watched.ended.subscribe();
            }
            Entry::Vacant(vacant) => Arc::clone(vacant.insert(Arc::default())),
        };
        let ended = watched.ended.subscribe();
        let watch = Watch {
            manager: self.without_context(),
            user_id: Arc::clone(user_id),
            key,
            watched,
        };
        // In no span, because it may outlive the request that was the first. Not while the lock is held: a runtime that
        // is shutting down drops it at once.
        runtime.spawn(watch.run());
        ended
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, HashMap<(runtime::Id, TokenIds), Arc<Watched>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D> Watch<D> {
    /// Watches until the session has ended, or nobody waits for that.
    async fn run(self) {
        let watching = self
            .manager
            .watch_session(&self.user_id, self.key.1, &self.watched.joined);
        let (mut ended, mut abandoned) = (pin!(watching), pin!(self.until_abandoned()));
        let has_ended = poll_fn(|cx| match ended.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => abandoned.as_mut().poll(cx).map(|()| false),
        });
        if has_ended.await {
            self.watched.ended.send_replace(true);
        }
    }

    async fn until_abandoned(&self) {
        loop {
            self.watched.ended.closed().await;
            let mut watches = self.manager.inner.watches.lock();
            // Nobody can join while the lock is held.
            if self.watched.ended.receiver_count() == 0 {
                watches.remove(&self.key);
                return;
            }
        }
    }
}

impl<D> Drop for Watch<D> {
    fn drop(&mut self) {
        let mut watches = self.manager.inner.watches.lock();
        let is_own = |watched: &Arc<Watched>| Arc::ptr_eq(watched, &self.watched);
        if watches.get(&self.key).is_some_and(is_own) {
            watches.remove(&self.key);
        }
    }
}

impl<D> TokenManager<D> {
    /// Waits for the end of a session by checking it after each change, whenever somebody has joined, and from time to
    /// time.
    async fn watch_session(&self, user_id: &Arc<str>, ids: TokenIds, joined: &Notify) {
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
                    if let Some(end) = end {
                        pause = pause.min(end.saturating_duration_since(Instant::now()));
                    }
                }
            }
            // A change soon after the last one waits, so that a user whose sessions change often costs few checks.
            tokio::time::sleep(MIN_PAUSE.min(pause.max(Duration::from_millis(1)))).await;
            let (mut changed, mut joined) = (pin!(changed), pin!(joined.notified()));
            let wake = poll_fn(|cx| match changed.as_mut().poll(cx) {
                Poll::Pending => joined.as_mut().poll(cx),
                ready => ready,
            });
            let _ = timeout(pause.saturating_sub(MIN_PAUSE), wake).await;
        }
    }
}

/// Somewhat less, so that the checks of many sessions that begin at once are spread.
fn jittered(pause: Duration) -> Duration {
    pause - jitter::up_to(pause / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_up_to_an_eighth_shorter() {
        let poll = Duration::from_secs(8);
        let pauses: Vec<_> = (0..1000).map(|_| jittered(poll)).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| (poll * 7 / 8..=poll).contains(pause))
        );
        assert!(pauses.iter().any(|pause| *pause < poll * 15 / 16));
    }
}
