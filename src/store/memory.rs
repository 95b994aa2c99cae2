use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Checked, Created, NewSession, OnFull, PutMode, SessionLimit, SessionRecord, SessionStore,
    earlier,
};
use crate::{Error, TokenId};

/// How many expired entries one call frees at most. A call adds at most one, so dead entries get fewer
/// with every call.
const PURGE_PER_CALL: usize = 8;

/// Sessions in this process's memory: the embedded default, for one process, tests and development.
///
/// Cloning gives another handle on the same sessions. They are gone when the last handle is.
///
/// Each call frees a few entries that have expired, so memory follows the live sessions without a
/// background task. Calls never block: the lock inside is held for moments and never across an await.
///
/// The clock is tokio's, so a test may pause and advance it (tokio's feature `test-util`).
#[derive(Clone)]
pub struct MemoryStore {
    started: (SystemTime, Instant),
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    users: HashMap<Arc<str>, UserEntry>,
    /// One entry for each session (`Some`) and cached value (`None`) in `users`.
    expiries: BTreeSet<(SystemTime, Arc<str>, Option<TokenId>)>,
}

#[derive(Default)]
struct UserEntry {
    sessions: HashMap<TokenId, SessionRecord>,
    cached: Option<(Bytes, SystemTime)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self {
            started: (SystemTime::now(), Instant::now()),
            state: Arc::default(),
        }
    }

    /// How many sessions and cached users are held, expired ones that are not freed yet included.
    pub fn len(&self) -> usize {
        self.lock().expiries.len()
    }

    /// Whether nothing at all is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn look_up(&self, user_id: &str, token_id: &TokenId) -> Option<Checked> {
        let (state, now) = self.begin();
        let user = state.users.get(user_id)?;
        Some(Checked {
            now,
            session: user.live(token_id, now)?.clone(),
            user: user.cached(now).cloned(),
        })
    }

    /// Monotonic, unlike the system's clock, from which it starts.
    fn now(&self) -> SystemTime {
        self.started.0 + self.started.1.elapsed()
    }

    /// The state, less a few entries that have expired, and the time.
    fn begin(&self) -> (MutexGuard<'_, State>, SystemTime) {
        let mut state = self.lock();
        let now = self.now();
        state.purge(now);
        (state, now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic between two halves of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Every method is linearizable, [`list`](SessionStore::list) included: one lock orders them all.
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
                session: session.clone(),
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

    async fn refresh(
        &self,
        user_id: &str,
        token_id: &TokenId,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let (mut state, now) = self.begin();
        let Some(mut session) = state.live(user_id, token_id, now).cloned() else {
            return Ok(false);
        };
        session.refreshed_at = now;
        session.expires_at = earlier(now + ttl, session.ends_at);
        state.put_session(user_id, token_id, session);
        Ok(true)
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        let (mut state, now) = self.begin();
        let ended = state.live(user_id, token_id, now).is_some();
        state.remove_session(user_id, token_id);
        Ok(ended)
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        let (mut state, now) = self.begin();
        let gone: Vec<_> = state
            .sessions(user_id)
            .filter(|&(id, session)| Some(id) != except || session.expires_at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &gone {
            state.remove_session(user_id, id);
        }
        Ok(gone.len() as u64)
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let mut sessions = {
            let (state, now) = self.begin();
            state.live_sessions(user_id, now)
        };
        sessions.sort_by_key(|(id, session)| (session.created_at, *id));
        Ok(sessions)
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        let (state, now) = self.begin();
        Ok(state.cached(user_id, now).cloned())
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
            && state.cached(user_id, now).map(|value| &**value) != expected
        {
            return Ok(false);
        }
        state.put_cached(user_id, Bytes::copy_from_slice(value), now + ttl);
        Ok(true)
    }
}

impl UserEntry {
    fn live(&self, token_id: &TokenId, now: SystemTime) -> Option<&SessionRecord> {
        let session = self.sessions.get(token_id)?;
        (now < session.expires_at).then_some(session)
    }

    fn cached(&self, now: SystemTime) -> Option<&Bytes> {
        let (value, expires_at) = self.cached.as_ref()?;
        (now < *expires_at).then_some(value)
    }
}

impl State {
    fn sessions(&self, user_id: &str) -> impl Iterator<Item = (&TokenId, &SessionRecord)> {
        self.users
            .get(user_id)
            .into_iter()
            .flat_map(|user| &user.sessions)
    }

    fn live(&self, user_id: &str, token_id: &TokenId, now: SystemTime) -> Option<&SessionRecord> {
        self.users.get(user_id)?.live(token_id, now)
    }

    fn live_sessions(&self, user_id: &str, now: SystemTime) -> Vec<(TokenId, SessionRecord)> {
        self.sessions(user_id)
            .filter(|(_, session)| now < session.expires_at)
            .map(|(id, session)| (*id, session.clone()))
            .collect()
    }

    fn cached(&self, user_id: &str, now: SystemTime) -> Option<&Bytes> {
        self.users.get(user_id)?.cached(now)
    }

    /// Evicts what must go for one more session, or says that there is no room.
    fn make_room(
        &mut self,
        user_id: &str,
        limit: SessionLimit,
        now: SystemTime,
    ) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let mut live = self.live_sessions(user_id, now);
        let max = limit.max.get() as usize;
        if live.len() < max {
            return Ok(Vec::new());
        }
        match limit.on_full {
            OnFull::Reject => return Err(Error::session_limit()),
            OnFull::EvictOldest => live.sort_by_key(|(id, session)| (session.created_at, *id)),
            OnFull::EvictLeastRecentlyRefreshed => {
                live.sort_by_key(|(id, session)| (session.refreshed_at, *id));
            }
        }
        live.truncate(live.len() + 1 - max);
        for (id, _) in &live {
            self.remove_session(user_id, id);
        }
        Ok(live)
    }

    fn put_session(&mut self, user_id: &str, token_id: &TokenId, session: SessionRecord) {
        self.remove_session(user_id, token_id);
        let user_id = self.intern(user_id);
        self.expiries
            .insert((session.expires_at, Arc::clone(&user_id), Some(*token_id)));
        let user = self.users.entry(user_id).or_default();
        user.sessions.insert(*token_id, session);
    }

    fn remove_session(&mut self, user_id: &str, token_id: &TokenId) {
        if let Some(user) = self.users.get_mut(user_id)
            && let Some(session) = user.sessions.remove(token_id)
        {
            self.forget(user_id, session.expires_at, Some(*token_id));
        }
    }

    fn put_cached(&mut self, user_id: &str, value: Bytes, expires_at: SystemTime) {
        self.remove_cached(user_id);
        let user_id = self.intern(user_id);
        self.expiries
            .insert((expires_at, Arc::clone(&user_id), None));
        self.users.entry(user_id).or_default().cached = Some((value, expires_at));
    }

    fn remove_cached(&mut self, user_id: &str) {
        if let Some(user) = self.users.get_mut(user_id)
            && let Some((_, expires_at)) = user.cached.take()
        {
            self.forget(user_id, expires_at, None);
        }
    }

    /// Drops the expiry entry of something removed, and the user with its last one.
    fn forget(&mut self, user_id: &str, expires_at: SystemTime, token_id: Option<TokenId>) {
        let user_id = self.intern(user_id);
        if let Some(user) = self.users.get(&user_id)
            && user.sessions.is_empty()
            && user.cached.is_none()
        {
            self.users.remove(&user_id);
        }
        self.expiries.remove(&(expires_at, user_id, token_id));
    }

    /// The shared copy of a user id, if the user has one already.
    fn intern(&self, user_id: &str) -> Arc<str> {
        match self.users.get_key_value(user_id) {
            Some((user_id, _)) => Arc::clone(user_id),
            None => user_id.into(),
        }
    }

    fn purge(&mut self, now: SystemTime) {
        for _ in 0..PURGE_PER_CALL {
            match self.expiries.first() {
                Some((expires_at, user_id, token_id)) if *expires_at <= now => {
                    let (user_id, token_id) = (Arc::clone(user_id), *token_id);
                    match token_id {
                        Some(token_id) => self.remove_session(&user_id, &token_id),
                        None => self.remove_cached(&user_id),
                    }
                }
                _ => break,
            }
        }
    }
}
