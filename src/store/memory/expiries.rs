//! The order in which entries of a memory store expire.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use crate::TokenId;

/// When what a memory store has expires: one entry for each session (`Some`) and cached value (`None`).
#[derive(Default)]
pub(super) struct Expiries {
    entries: BTreeSet<(SystemTime, Arc<str>, Option<TokenId>)>,
    /// That of the first entry, for checks, which then need not look for it.
    first: Option<SystemTime>,
}

impl Expiries {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(
        &mut self,
        expires_at: SystemTime,
        user_id: &Arc<str>,
        token_id: Option<TokenId>,
    ) {
        let user_id = Arc::clone(user_id);
        self.entries.insert((expires_at, user_id, token_id));
        self.note_first();
    }

    pub(super) fn remove(
        &mut self,
        expires_at: SystemTime,
        user_id: Arc<str>,
        token_id: Option<TokenId>,
    ) {
        self.entries.remove(&(expires_at, user_id, token_id));
        self.note_first();
    }

    /// The first entry, if it has expired.
    #[inline]
    pub(super) fn first_until(&self, now: SystemTime) -> Option<(Arc<str>, Option<TokenId>)> {
        if self.first? > now {
            return None;
        }
        let (_, user_id, token_id) = self.entries.first()?;
        Some((Arc::clone(user_id), *token_id))
    }

    fn note_first(&mut self) {
        self.first = self.entries.first().map(|(expires_at, ..)| *expires_at);
    }
}
