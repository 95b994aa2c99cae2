use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;

use self::state::{State, USERS_PER_PAGE};
use super::{
    CachedUser, Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord,
    SessionStore, Updated, UserCursor, UserPage,
};
use crate::{Error, TokenId};

mod expiries;
mod sessions;
mod state;

/// An in-memory session store, for a single process, tests and development.
///
/// A clone is another handle to the same sessions, which are dropped with the last handle.
///
/// Each call frees a few expired entries, so memory use follows the live sessions without a background task. Calls do
/// not wait: the internal lock is held only briefly and never across an await.
///
/// The store uses tokio's clock, so tests can pause and advance it (tokio's feature `test-util`).
#[derive(Clone)]
pub struct MemoryStore {
    started: (SystemTime, Instant),
    state: Arc<Mutex<State>>,
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self {
            started: (SystemTime::now(), Instant::now()),
            state: Arc::default(),
        }
    }

    /// The number of stored sessions and cached users, including expired ones that are not freed yet.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether the store contains no sessions and no cached users.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn look_up(&self, user_id: &str, token_id: &TokenId) -> Option<Checked> {
        let (state, now) = self.begin();
        state.sessions.check(user_id, token_id, now)
    }

    /// The store's clock: it starts at the system time, but is monotonic.
    fn now(&self) -> SystemTime {
        self.started.0 + self.started.1.elapsed()
    }

    /// Locks the state, frees a few expired entries, and returns the state with the current time.
    fn begin(&self) -> (Locked<'_>, SystemTime) {
        let mut state = self.lock();
        let now = self.now();
        state.purge(now);
        (state, now)
    }

    fn lock(&self) -> Locked<'_> {
        // No code that holds the lock can panic in the middle of a change.
        Locked(Some(
            self.state.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

/// The locked state. What was removed is dropped after the lock is released: the detail of a user is of a type of the
/// application's.
struct Locked<'a>(Option<MutexGuard<'a, State>>);

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.0.as_ref().expect("it is locked until it is dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().expect("it is locked until it is dropped")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let removed = mem::take(&mut self.removed);
        drop(self.0.take());
        drop(removed);
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Every method is linearizable, including [`list`](SessionStore::list): a single lock orders all calls.
impl SessionStore for MemoryStore {
    async fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        let (mut state, now) = self.begin();
        if let Some(session) = state.live(user_id, token_id, now) {
            return Ok(Created {
                session: SessionRecord::clone(session),
                evicted: Vec::new(),
            });
        }
        let evicted = match limit {
            Some(limit) => state.make_room(user_id, limit, now)?,
            None => Vec::new(),
        };
        let session = SessionRecord::begin(new, now);
        state.put_session(user_id, token_id, session.clone());
        Ok(Created { session, evicted })
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        Ok(self.look_up(user_id, token_id))
    }

    fn check_now(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Option<Result<Option<Checked>, Error>> {
        Some(Ok(self.look_up(user_id, token_id)))
    }

    async fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        let (mut state, now) = self.begin();
        let Some(session) = state.live(user_id, token_id, now) else {
            return Ok(None);
        };
        let mut session = SessionRecord::clone(session);
        if !session.apply(token_id, change, now) {
            return Ok(None);
        }
        let expires_at = session.expires_at;
        state.put_session(user_id, token_id, session);
        let ended = match change.end_others {
            true => state.remove_all(user_id, Some(token_id), now),
            false => 0,
        };
        Ok(Some(Updated { expires_at, ended }))
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        let (mut state, now) = self.begin();
        let ended = state.live(user_id, token_id, now).is_some();
        state.remove_session(user_id, token_id);
        Ok(ended)
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        let (mut state, now) = self.begin();
        Ok(state.remove_all(user_id, except, now))
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let mut sessions = {
            let (state, now) = self.begin();
            state.live_sessions(user_id, now)
        };
        sessions.sort_by_key(|(id, session)| (session.created_at, *id));
        Ok(sessions)
    }

    async fn list_users(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        // No user id is empty.
        let after = after.map(UserCursor::user_id).transpose()?;
        let after = String::from_utf8(after.unwrap_or_default());
        let after = after.map_err(|_| UserCursor::invalid())?;
        let (state, _) = self.begin();
        let users = state.users_after(&after);
        let next = match users.len() {
            USERS_PER_PAGE => users
                .last()
                .map(|last| UserCursor::after_user(last.as_bytes())),
            _ => None,
        };
        Ok(UserPage::new(users, next))
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        let (state, now) = self.begin();
        Ok(state.cached(user_id, now).cloned().map(Bytes::from))
    }

    async fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        let (mut state, now) = self.begin();
        if let PutMode::IfUnchanged(expected) = mode
            && state.cached(user_id, now).map(|user| &**user) != expected
        {
            return Ok(false);
        }
        let value = CachedUser::kept(Bytes::copy_from_slice(value));
        state.put_cached(user_id, value, now + ttl);
        Ok(true)
    }

    fn changed(&self, user_id: &str) -> impl Future<Output = ()> + Send {
        let changes = self.lock().changes(user_id);
        async move {
            if let Some(mut changes) = changes {
                // An error means that the last session is gone.
                let _ = changes.changed().await;
            }
        }
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}
