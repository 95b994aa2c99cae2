//! Those who wait for a change of a user's sessions.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

use tokio::sync::watch;

/// Wakes those who wait for users.
#[derive(Default)]
pub(super) struct Waiters {
    users: Mutex<HashMap<Arc<str>, watch::Sender<()>>>,
    /// The number of users for whom somebody waits, so that a change for which nobody does takes no lock.
    count: AtomicUsize,
}

/// A wait for one user.
struct Waiting<'a> {
    waiters: &'a Waiters,
    user_id: Arc<str>,
    /// `None` once it is dropped.
    changes: Option<watch::Receiver<()>>,
}

impl Waiters {
    /// Returns a future that resolves when the user is woken after this call.
    pub(super) fn wait(&self, user_id: &str) -> impl Future<Output = ()> + Send {
        let mut users = self.users();
        let changes = match users.get(user_id) {
            Some(changes) => changes.subscribe(),
            None => {
                let (sender, changes) = watch::channel(());
                users.insert(user_id.into(), sender);
                self.count.store(users.len(), Ordering::Relaxed);
                changes
            }
        };
        drop(users);
        // Either a change after this sees the count, or a check after this sees the change.
        fence(Ordering::SeqCst);
        let mut waiting = Waiting {
            waiters: self,
            user_id: user_id.into(),
            changes: Some(changes),
        };
        async move {
            if let Some(changes) = &mut waiting.changes {
                // Cannot fail: the sender stays as long as somebody waits.
                let _ = changes.changed().await;
            }
        }
    }

    /// Wakes those who wait for this user.
    pub(super) fn wake(&self, user_id: &str) {
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let changes = self.users().get(user_id).cloned();
        // Wakers are called without the lock.
        if let Some(changes) = changes {
            changes.send_replace(());
        }
    }

    /// Wakes all.
    pub(super) fn wake_all(&self) {
        let all: Vec<_> = self.users().values().cloned().collect();
        for changes in all {
            changes.send_replace(());
        }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<Arc<str>, watch::Sender<()>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut users = self.waiters.users();
        // While the lock is held, so that the last one of several knows that it is.
        self.changes = None;
        if let Some(changes) = users.get(&self.user_id)
            && changes.receiver_count() == 0
        {
            users.remove(&self.user_id);
            self.waiters.count.store(users.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::{Duration, timeout};

    use super::*;

    async fn is_woken(wait: impl Future<Output = ()>) -> bool {
        timeout(Duration::from_millis(1), wait).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_a_user_are_woken_and_no_others() {
        let waiters = Waiters::default();
        let (al, again, bo) = (waiters.wait("al"), waiters.wait("al"), waiters.wait("bo"));
        waiters.wake("al");
        let (mut bo, late) = (pin!(bo), waiters.wait("al"));
        assert!(is_woken(al).await && is_woken(again).await);
        assert!(!is_woken(bo.as_mut()).await && !is_woken(late).await);
        waiters.wake_all();
        assert!(is_woken(bo).await);
    }

    #[tokio::test]
    async fn whoever_waits_no_more_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let (one, other) = (waiters.wait("al"), waiters.wait("al"));
        drop(one);
        assert_eq!(waiters.users().len(), 1);
        drop(other);
        assert_eq!(
            (waiters.users().len(), waiters.count.load(Ordering::Relaxed)),
            (0, 0)
        );
    }
}
