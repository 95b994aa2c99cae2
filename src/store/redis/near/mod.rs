//! The near-cache: checks that are answered in the process.
//!
//! The server announces changes on the connection on which lookups are sent ([`tracking`]). The [`table`] has what
//! lookups have found, and drops a user's entries at each announcement. An entry is served as long as the [`lease`] of
//! the connection on which it was read holds, and nothing in it has come to its end by the server's clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

pub use self::{health::NearCacheHealth, settings::NearCache};
use self::{
    lease::Lease,
    table::{Table, Ticket},
    waiters::Waiters,
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
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod tracking;
mod waiters;

/// What lookups have found, for the store.
pub(crate) struct Near {
    pub(crate) settings: NearCache,
    keys: Keys,
    table: Table<TokenId, Entry>,
    started: Instant,
    lease_losses: AtomicU64,
    waiters: Waiters,
}

/// What a lookup has found.
pub(crate) struct Entry {
    /// The lease of the connection on which it was found.
    lease: Arc<Lease>,
    /// The slot of the user, in a cluster.
    slot: Option<u16>,
    /// When a lookup finds something else for the first time although nothing was written: when the session, the grace
    /// of a replaced token or the user's value ends, by the server's clock, in microseconds since the Unix epoch.
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
            lease_losses: AtomicU64::new(0),
            waiters: Waiters::default(),
        }
    }

    /// Begins a lookup; before it is sent.
    pub(crate) fn begin(&self, user_id: &str) -> Ticket {
        self.table.begin(user_id)
    }

    /// Keeps what a lookup has found, in a record of so many bytes and the user's value.
    pub(crate) fn finish(
        &self,
        ticket: Ticket,
        token_id: &TokenId,
        entry: Entry,
        record_len: usize,
    ) {
        if !entry.lease.has_ended() {
            let bytes = record_len + entry.bytes();
            self.table.finish(ticket, *token_id, entry, bytes);
        }
    }

    /// What a lookup found, if it is still valid. `is_current` tells whether another lookup would be sent on the
    /// connection with this lease, for this slot.
    pub(crate) fn hit(
        &self,
        user_id: &str,
        token_id: &TokenId,
        is_current: impl FnOnce(&Arc<Lease>, Option<u16>) -> bool,
    ) -> Option<Checked> {
        self.table.hit(user_id, token_id, |entry| {
            let time = entry.lease.at(self.now())?;
            (time.latest < entry.ends && is_current(&entry.lease, entry.slot)).then(|| Checked {
                now: entry.checked.now.max(system_time(time.earliest)),
                ..entry.checked.clone()
            })
        })
    }

    /// Drops what is known of a user, because it may have changed.
    pub(crate) fn invalidate(&self, user_id: &str) {
        self.table.invalidate(user_id);
        self.waiters.wake(user_id);
    }

    /// Drops what is known of the user with this key.
    pub(crate) fn invalidate_key(&self, key: &[u8]) {
        if let Some(user_id) = self.keys.owner_of(key) {
            self.invalidate(&user_id);
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.table.clear();
        self.waiters.wake_all();
    }

    /// Returns a future that resolves when a change of this user is announced, or may have been missed, after this
    /// call.
    pub(crate) fn changed(&self, user_id: &str) -> impl Future<Output = ()> + Send {
        self.waiters.wait(user_id)
    }

    pub(crate) fn health(&self) -> NearCacheHealth {
        self.table.health(self.lease_losses.load(Ordering::Relaxed))
    }

    /// Wakes all who wait for a change, because one may have been missed.
    fn wake_all(&self) {
        self.waiters.wake_all();
    }

    /// Notes that a lease has been lost.
    fn note_loss(&self) {
        self.lease_losses.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "tracing")]
        tracing::debug!("the near-cache has lost a lease: checks ask the server");
    }

    /// The `n`th one of keys that no user has, and that are in all slots of a cluster.
    pub(crate) fn probe(&self, n: u32) -> String {
        self.keys.nth_probe(n)
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

impl Entry {
    /// What was found in this slot on the connection with this lease. The user's value lives so long.
    pub(crate) fn new(
        checked: Checked,
        user_ttl: Option<Duration>,
        lease: Arc<Lease>,
        slot: Option<u16>,
    ) -> Self {
        let ends = micros(next_end(&checked.session, checked.now));
        // The server counts the ttl from a moment that it has cut to milliseconds.
        let now = micros(checked.now) / 1000 * 1000;
        let user_ends = user_ttl.map(|ttl| now + ttl.as_micros() as u64);
        Self {
            lease,
            slot,
            ends: user_ends.map_or(ends, |user| user.min(ends)),
            checked,
        }
    }

    /// The size of what it refers to, but for the record.
    fn bytes(&self) -> usize {
        // Beside the counts of its references.
        let session = 2 * size_of::<usize>() + size_of::<SessionRecord>();
        let rotation = self.checked.session.rotation.as_deref();
        let rotation = rotation.map_or(0, |rotation| {
            size_of_val(rotation) + size_of_val(&*rotation.replaced)
        });
        // What it decodes to takes about as much.
        let user = self.checked.user.as_ref().map_or(0, |user| 2 * user.len());
        session + rotation + user
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
