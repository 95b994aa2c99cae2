//! The sessions of a memory store, laid out for checks: all that a check needs is in one entry, and an entry is found by
//! the id of its session, which needs no hashing because it is a hash.

use std::{sync::Arc, time::SystemTime};

use hashbrown::HashTable;

use super::super::{CachedUser, Checked, SessionRecord};
use crate::TokenId;

/// All sessions, by their ids and users.
#[derive(Default)]
pub(super) struct Sessions(HashTable<Entry>);

struct Entry {
    token_id: TokenId,
    user_id: Arc<str>,
    record: Arc<SessionRecord>,
    /// A copy of the user's.
    cached: Option<Cached>,
}

/// The cached value of a user, and its expiry.
#[derive(Clone)]
pub(super) struct Cached {
    pub(super) value: CachedUser,
    pub(super) expires_at: SystemTime,
}

impl Cached {
    pub(super) fn live(&self, now: SystemTime) -> Option<&CachedUser> {
        (now < self.expires_at).then_some(&self.value)
    }
}

impl Sessions {
    pub(super) fn get(&self, user_id: &str, token_id: &TokenId) -> Option<&Arc<SessionRecord>> {
        self.find(user_id, token_id).map(|entry| &entry.record)
    }

    #[inline]
    pub(super) fn check(
        &self,
        user_id: &str,
        token_id: &TokenId,
        now: SystemTime,
    ) -> Option<Checked> {
        let Entry { record, cached, .. } = self.find(user_id, token_id)?;
        (now < record.expires_at).then(|| Checked {
            now,
            session: Arc::clone(record),
            user: cached.as_ref().and_then(|cached| cached.live(now)).cloned(),
        })
    }

    /// Inserts a session that is not there yet.
    pub(super) fn insert(
        &mut self,
        user_id: Arc<str>,
        token_id: TokenId,
        record: SessionRecord,
        cached: Option<Cached>,
    ) {
        let entry = Entry {
            token_id,
            user_id,
            record: Arc::new(record),
            cached,
        };
        let hash = |entry: &Entry| hash(&entry.token_id);
        self.0.insert_unique(hash(&entry), entry, hash);
    }

    pub(super) fn remove(
        &mut self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Option<Arc<SessionRecord>> {
        let is_it = |entry: &Entry| entry.is(user_id, token_id);
        let found = self.0.find_entry(hash(token_id), is_it).ok()?;
        Some(found.remove().0.record)
    }

    /// Sets the copy of the user's cached value.
    pub(super) fn set_cached(
        &mut self,
        user_id: &str,
        token_id: &TokenId,
        cached: Option<&Cached>,
    ) {
        let is_it = |entry: &Entry| entry.is(user_id, token_id);
        if let Some(entry) = self.0.find_mut(hash(token_id), is_it) {
            entry.cached = cached.cloned();
        }
    }

    fn find(&self, user_id: &str, token_id: &TokenId) -> Option<&Entry> {
        let is_it = |entry: &Entry| entry.is(user_id, token_id);
        self.0.find(hash(token_id), is_it)
    }
}

impl Entry {
    fn is(&self, user_id: &str, token_id: &TokenId) -> bool {
        self.token_id == *token_id && *self.user_id == *user_id
    }
}

/// A part of the id, which is a hash of the token that began the session. Only sessions that were begun are looked
/// through, so nobody fills the table with ids that collide.
fn hash(token_id: &TokenId) -> u64 {
    let bytes = token_id.to_bytes();
    u64::from_le_bytes(*bytes.first_chunk().expect("8 of 16 bytes"))
}
