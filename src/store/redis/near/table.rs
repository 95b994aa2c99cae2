//! A cache of values that belong to *owners*, in which an invalidation of an owner makes all of its values void,
//! whatever is in flight.
//!
//! Each owner has a *version*, a counter. A reader notes it ([`Table::begin`]) before it asks the server, and stores
//! the value with it ([`Table::finish`]). A value is found only as long as the owner still has that version, and an
//! [invalidation](Table::invalidate) raises the version. So it needs no lock, no list of the owner's values and none of
//! the reads in flight, and a read that is given up leaves nothing behind.
//!
//! Many owners share a counter, by a hash. An invalidation can therefore make values of other owners void, which have
//! to be read again. The hash also stands for the owner where values are found, so that names need not be kept and
//! compared: it has 64 bits and a secret key (SipHash, J.-P. Aumasson and D. J. Bernstein, 2012), and a key of a value
//! belongs to one owner anyway.

use std::hash::{BuildHasher, Hash, RandomState};

pub(crate) use super::shard::Ticket;
use super::{
    health::NearCacheHealth,
    shard::{self, Shard},
};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// The number of bytes for which there is a counter; a value with its owner takes about as much.
const BYTES_PER_COUNTER: usize = 512;
const MAX_COUNTERS: usize = 1 << 22;
/// The size of a shard: the smaller, the rarer two threads want the same one.
const SHARD_BYTES: usize = 1024 * 1024;
const MAX_SHARDS: usize = 64;
/// A value that takes a larger part of its shard is not kept: it would evict too many others.
const MAX_PART: usize = 8;

/// Values by their keys; bounded by bytes.
pub(crate) struct Table<K, V> {
    /// The versions of owners, each without that of everything.
    versions: Box<[AtomicU64]>,
    /// The version of everything.
    era: AtomicU64,
    /// The hashing of owners.
    hashing: RandomState,
    shards: Box<[Mutex<Shard<K, V>>]>,
    shard_bytes: usize,
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// An empty table that takes about so many bytes when it is full.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let counters = (max_bytes / BYTES_PER_COUNTER).clamp(1, MAX_COUNTERS);
        let shards = (max_bytes / SHARD_BYTES).clamp(1, MAX_SHARDS);
        Self::with_parts(max_bytes, counters, shards)
    }

    /// The same, with so many counters and shards.
    pub(crate) fn with_parts(max_bytes: usize, counters: usize, shards: usize) -> Self {
        let left = max_bytes.saturating_sub(counters * size_of::<AtomicU64>());
        Self {
            versions: (0..counters).map(|_| AtomicU64::new(0)).collect(),
            era: AtomicU64::new(0),
            hashing: RandomState::new(),
            shards: (0..shards).map(|_| Mutex::new(Shard::new())).collect(),
            shard_bytes: left / shards,
        }
    }

    /// Begins a read of a value of this owner. It must be called before the read is sent.
    pub(crate) fn begin(&self, owner: &str) -> Ticket {
        let owner = self.hashing.hash_one(owner);
        let version = self.version(owner);
        Ticket { owner, version }
    }

    /// Stores a value that was read since [`begin`](Self::begin), unless its owner has been invalidated since then.
    /// `bytes` is the size of what the value refers to.
    pub(crate) fn finish(&self, ticket: Ticket, key: K, value: V, bytes: usize) {
        if !self.is_current(ticket) || Shard::<K, V>::size(bytes) > self.shard_bytes / MAX_PART {
            return;
        }
        let mut shard = lock(self.shard(&key));
        let is_current = |ticket| self.is_current(ticket);
        let evicted = shard.insert(key, ticket, value, bytes, self.shard_bytes, is_current);
        drop(shard);
        // Values are dropped without the lock.
        drop(evicted);
    }

    /// Makes all values of this owner void, and those whose reads have begun.
    pub(crate) fn invalidate(&self, owner: &str) {
        let owner = self.hashing.hash_one(owner);
        self.counter(owner).fetch_add(1, Ordering::AcqRel);
    }

    /// Makes all values void, and those whose reads have begun.
    pub(crate) fn clear(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// Reads the value with this key if it is valid and belongs to this owner. The shard is locked meanwhile.
    pub(crate) fn hit<T>(
        &self,
        owner: &str,
        key: &K,
        read: impl FnOnce(&V) -> Option<T>,
    ) -> Option<T> {
        let owner = self.hashing.hash_one(owner);
        let mut shard = lock(self.shard(key));
        let entry = shard.get(key, owner);
        let entry = entry.filter(|entry| self.is_current(entry.ticket()));
        let found = entry.and_then(|entry| read(entry.used()));
        match found {
            Some(_) => shard.hits += 1,
            None => shard.misses += 1,
        }
        found
    }

    /// What the table has done so far, by connections that have lost so many leases. It locks each shard in turn.
    pub(crate) fn health(&self, lease_losses: u64) -> NearCacheHealth {
        let versions = self.versions.iter().chain([&self.era]);
        let mut health = NearCacheHealth {
            bytes: size_of_val(&*self.versions),
            hits: 0,
            misses: 0,
            lease_losses,
            invalidations: versions
                .map(|version| version.load(Ordering::Relaxed))
                .sum(),
        };
        for shard in &self.shards {
            let shard = lock(shard);
            health.bytes += shard.bytes();
            health.hits += shard.hits;
            health.misses += shard.misses;
        }
        health
    }

    /// Whether nothing has been invalidated since this was the version.
    fn is_current(&self, ticket: Ticket) -> bool {
        self.version(ticket.owner) == ticket.version
    }

    /// The version of an owner: its own and that of everything. Both only grow, so their sum is the same only as long as
    /// both are.
    fn version(&self, owner: u64) -> u64 {
        let own = self.counter(owner).load(Ordering::Acquire);
        own + self.era.load(Ordering::Acquire)
    }

    fn counter(&self, owner: u64) -> &AtomicU64 {
        &self.versions[owner as usize % self.versions.len()]
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K, V>> {
        // A map takes its places from the low bits and its tags from the high ones.
        let hash = shard::hash(key) >> 32;
        &self.shards[hash as usize % self.shards.len()]
    }
}
