use std::{
    collections::{BTreeSet, HashMap},
    mem,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
    time::SystemTime,
};

use tokio::sync::watch;

use super::{
    super::{CachedUser, OnFull, SessionLimit, SessionRecord},
    expiries::Expiries,
    sessions::{Cached, Sessions},
};
use crate::{Error, TokenId};

/// The maximum number of expired entries that one call frees. A call adds at most one entry, so purging keeps up.
const PURGE_PER_CALL: usize = 8;
/// The number of users in a page of a list.
pub(super) const USERS_PER_PAGE: usize = 1000;

#[derive(Default)]
pub(super) struct State {
    pub(super) sessions: Sessions,
    users: HashMap<Arc<str>, UserEntry>,
    /// Those of `users` who have sessions, in the order of their ids.
    with_sessions: BTreeSet<Arc<str>>,
    expiries: Expiries,
    /// The cached values that were removed, to be dropped without the lock.
    pub(super) removed: Vec<CachedUser>,
}

#[derive(Default)]
struct UserEntry {
    sessions: BTreeSet<TokenId>,
    cached: Option<Cached>,
    /// Tells those who wait when a session starts, changes or ends; `None` if nobody has ever waited.
    changes: Option<watch::Sender<()>>,
}

impl UserEntry {
    /// Sets the cached value, and the copies of it. Returns the one before.
    fn set_cached(
        &mut self,
        sessions: &mut Sessions,
        user_id: &str,
        cached: Option<Cached>,
    ) -> Option<Cached> {
        for id in &self.sessions {
            sessions.set_cached(user_id, id, cached.as_ref());
        }
        mem::replace(&mut self.cached, cached)
    }

    fn tell_of_change(&self) {
        if let Some(changes) = &self.changes {
            changes.send_replace(());
        }
    }
}

impl State {
    /// The number of sessions and cached values.
    pub(super) fn len(&self) -> usize {
        self.expiries.len()
    }

    /// Receives the changes of a user's sessions; `None` if the user has none.
    pub(super) fn changes(&mut self, user_id: &str) -> Option<watch::Receiver<()>> {
        let user = self.users.get_mut(user_id)?;
        let changes = user.changes.get_or_insert_with(|| watch::channel(()).0);
        Some(changes.subscribe())
    }

    /// All sessions of a user, expired ones as well.
    fn sessions_of(&self, user_id: &str) -> impl Iterator<Item = (&TokenId, &Arc<SessionRecord>)> {
        let ids = self.users.get(user_id).map(|user| &user.sessions);
        ids.into_iter()
            .flatten()
            .filter_map(move |id| Some((id, self.sessions.get(user_id, id)?)))
    }

    pub(super) fn live(
        &self,
        user_id: &str,
        token_id: &TokenId,
        now: SystemTime,
    ) -> Option<&Arc<SessionRecord>> {
        let session = self.sessions.get(user_id, token_id)?;
        (now < session.expires_at).then_some(session)
    }

    pub(super) fn live_sessions(
        &self,
        user_id: &str,
        now: SystemTime,
    ) -> Vec<(TokenId, SessionRecord)> {
        self.sessions_of(user_id)
            .filter(|(_, session)| now < session.expires_at)
            .map(|(id, session)| (*id, SessionRecord::clone(session)))
            .collect()
    }

    /// The first users after this id who have sessions, in the order of their ids.
    pub(super) fn users_after(&self, user_id: &str) -> Vec<String> {
        let range = (Excluded(user_id), Unbounded);
        let users = self.with_sessions.range::<str, _>(range);
        users
            .take(USERS_PER_PAGE)
            .map(ToString::to_string)
            .collect()
    }

    pub(super) fn cached(&self, user_id: &str, now: SystemTime) -> Option<&CachedUser> {
        self.users.get(user_id)?.cached.as_ref()?.live(now)
    }

    /// Evicts sessions to make room for one more, or fails if the limit rejects the login.
    pub(super) fn make_room(
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

    pub(super) fn put_session(
        &mut self,
        user_id: &str,
        token_id: &TokenId,
        session: SessionRecord,
    ) {
        self.remove_session(user_id, token_id);
        let user_id = self.intern(user_id);
        self.expiries
            .insert(session.expires_at, &user_id, Some(*token_id));
        let user = self.users.entry(Arc::clone(&user_id)).or_default();
        if user.sessions.is_empty() {
            self.with_sessions.insert(Arc::clone(&user_id));
        }
        user.sessions.insert(*token_id);
        self.sessions
            .insert(user_id, *token_id, session, user.cached.clone());
        user.tell_of_change();
    }

    pub(super) fn remove_session(&mut self, user_id: &str, token_id: &TokenId) {
        if let Some(session) = self.sessions.remove(user_id, token_id)
            && let Some(user) = self.users.get_mut(user_id)
        {
            user.sessions.remove(token_id);
            user.tell_of_change();
            if user.sessions.is_empty() {
                self.with_sessions.remove(user_id);
            }
            self.forget(user_id, session.expires_at, Some(*token_id));
        }
    }

    /// Removes all sessions of a user except a live one; returns their number.
    pub(super) fn remove_all(
        &mut self,
        user_id: &str,
        except: Option<&TokenId>,
        now: SystemTime,
    ) -> u64 {
        let sessions = self.sessions_of(user_id);
        let gone: Vec<_> = sessions
            .filter(|&(id, session)| Some(id) != except || session.expires_at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &gone {
            self.remove_session(user_id, id);
        }
        gone.len() as u64
    }

    pub(super) fn put_cached(&mut self, user_id: &str, value: CachedUser, expires_at: SystemTime) {
        let user_id = self.intern(user_id);
        let cached = Some(Cached { value, expires_at });
        let user = self.users.entry(Arc::clone(&user_id)).or_default();
        if let Some(before) = user.set_cached(&mut self.sessions, &user_id, cached) {
            self.removed.push(before.value);
            self.expiries
                .remove(before.expires_at, Arc::clone(&user_id), None);
        }
        self.expiries.insert(expires_at, &user_id, None);
    }

    fn remove_cached(&mut self, user_id: &str) {
        if let Some(user) = self.users.get_mut(user_id)
            && let Some(removed) = user.set_cached(&mut self.sessions, user_id, None)
        {
            self.removed.push(removed.value);
            self.forget(user_id, removed.expires_at, None);
        }
    }

    /// Removes the expiry entry of a removed session or cached value, and the user entry if it is empty.
    fn forget(&mut self, user_id: &str, expires_at: SystemTime, token_id: Option<TokenId>) {
        let user_id = self.intern(user_id);
        if let Some(user) = self.users.get(&user_id)
            && user.sessions.is_empty()
            && user.cached.is_none()
        {
            self.users.remove(&user_id);
        }
        self.expiries.remove(expires_at, user_id, token_id);
    }

    /// The shared copy of a user id, if the user has one already.
    fn intern(&self, user_id: &str) -> Arc<str> {
        match self.users.get_key_value(user_id) {
            Some((user_id, _)) => Arc::clone(user_id),
            None => user_id.into(),
        }
    }

    pub(super) fn purge(&mut self, now: SystemTime) {
        for _ in 0..PURGE_PER_CALL {
            match self.expiries.first_until(now) {
                Some((user_id, Some(token_id))) => self.remove_session(&user_id, &token_id),
                Some((user_id, None)) => self.remove_cached(&user_id),
                None => break,
            }
        }
    }
}
