//! The near-cache: checks that are answered in the process.
//!
//! The server announces changes on the connection on which lookups are sent ([`tracking`]). The [`table`] has what
//! lookups have found, and drops a user's entries at each announcement. An entry is served as long as the [`lease`] of the
//! connection on which it was read holds, and nothing in it has come to its end by the server's clock.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

pub use self::{health::NearCacheHealth, settings::NearCache};
use self::{
    lease::Lease,
    table::{Table, Ticket},
};
use super::keys::Keys;
use crate::{
    TokenId,
    store::{Checked, SessionRecord},
};

mod health;
pub(crate) mod lease;
mod settings;
mod shard;
mod sync;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod tracking;

/// What lookups have found, for the store.
pub(crate) struct Near {
    pub(crate) settings: NearCache,
    keys: Keys,
    table: Table<TokenId, Entry>,
    started: Instant,
}

/// What a lookup has found.
struct Entry {
    /// The lease of the connection on which it was found.
    lease: Arc<Lease>,
    /// When the verdict on the session changes by itself: when it or the grace of a replaced token ends, by the server's
    /// clock, in microseconds since the Unix epoch.
    ends: u64,
    checked: Checked,
}

impl Near {
    pub(crate) fn new(settings: NearCache, keys: Keys) -> Self {
        Self {
            table: Table::new(settings.max_bytes),
            settings,
            keys,
            started: Instant::now(),
        }
    }

    /// Begins a lookup; before it is sent.
    pub(crate) fn begin(&self, user_id: &str) -> Ticket {
        self.table.begin(user_id)
    }

    /// Keeps what a lookup has found on the connection with this lease. `record_len` is the size of the record that
    /// `checked` was read from.
    pub(crate) fn finish(
        &self,
        ticket: Ticket,
        lease: &Arc<Lease>,
        user_id: &str,
        token_id: &TokenId,
        checked: &Checked,
        record_len: usize,
    ) {
        if lease.has_ended() {
            return;
        }
        let rotation = checked.session.rotation.as_deref();
        let rotation = rotation.map_or(0, |rotation| {
            size_of_val(rotation) + size_of_val(&*rotation.replaced)
        });
        let user = checked.user.as_ref().map_or(0, bytes::Bytes::len);
        let entry = Entry {
            lease: Arc::clone(lease),
            ends: micros(next_end(&checked.session, checked.now)),
            checked: checked.clone(),
        };
        let bytes = rotation + user + record_len;
        self.table.finish(ticket, user_id, *token_id, entry, bytes);
    }

    /// What a lookup found, if it is still valid. `is_served_by` tells whether a lookup would go to the server of this
    /// lease.
    pub(crate) fn hit(
        &self,
        user_id: &str,
        token_id: &TokenId,
        is_served_by: impl FnOnce(&Arc<Lease>) -> bool,
    ) -> Option<Checked> {
        self.table.hit(user_id, token_id, |entry| {
            let time = entry.lease.at(self.now())?;
            (time.latest < entry.ends && is_served_by(&entry.lease)).then(|| Checked {
                now: entry.checked.now.max(system_time(time.earliest)),
                ..entry.checked.clone()
            })
        })
    }

    /// Drops what is known of a user, because it may have changed.
    pub(crate) fn invalidate(&self, user_id: &str) {
        self.table.invalidate(user_id);
    }

    /// Drops what is known of the user with this key.
    pub(crate) fn invalidate_key(&self, key: &[u8]) {
        if let Some(user_id) = self.keys.owner_of(key) {
            self.table.invalidate(&user_id);
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.table.clear();
    }

    pub(crate) fn health(&self) -> NearCacheHealth {
        self.table.health()
    }

    /// The beginnings of the keys whose changes matter.
    pub(crate) fn prefixes(&self) -> [String; 2] {
        self.keys.beginnings()
    }

    /// Now, in the microseconds of all leases.
    pub(crate) fn now(&self) -> u64 {
        // No lease that has not begun holds at the very beginning.
        1 + self.started.elapsed().as_micros() as u64
    }
}

/// The first end after `now` in a live session: its own, or that of the grace of a replaced token.
fn next_end(session: &SessionRecord, now: SystemTime) -> SystemTime {
    let rotation = session.rotation.iter();
    let graces = rotation.flat_map(|rotation| &rotation.replaced);
    let graces = graces.map(|token| token.usable_until);
    let ends = graces.filter(|end| *end > now);
    ends.fold(session.expires_at, SystemTime::min)
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

fn system_time(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}
