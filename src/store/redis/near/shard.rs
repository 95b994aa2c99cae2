//! A part of a table: a map with a bound, from which CLOCK evicts (F. J. Corbató, *A Paging Experiment with the Multics
//! System*, 1968).
//!
//! A hand goes round the entries. It evicts the first one that has not been used since it last came by.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
};

/// The most entries that get a second chance in a row, so that the shard is not locked for long.
const MAX_CHANCES: u32 = 64;

/// The hashing of keys that are hashes already.
pub(super) type IdHashing = BuildHasherDefault<IdHasher>;

/// The version of an owner at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Which counter is the owner's.
    pub(super) counter: usize,
    /// What the counter was.
    pub(super) version: u64,
    /// The version of everything.
    pub(super) era: u64,
}

pub(super) struct Shard<K, V> {
    entries: HashMap<K, Box<Entry<V>>, IdHashing>,
    /// The keys of all entries, in no order that matters.
    ring: Vec<K>,
    hand: usize,
    bytes: usize,
    /// How many reads have found something, and how many have not.
    pub(super) hits: u64,
    pub(super) misses: u64,
}

pub(super) struct Entry<V> {
    ticket: Ticket,
    /// Whether it was used since the hand last came by.
    is_used: bool,
    /// The place in the ring.
    place: usize,
    bytes: usize,
    owner: Box<str>,
    value: V,
}

/// Mixes the bytes of a hash, which need no strong hash of their own.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl<K: Copy + Eq + Hash, V> Shard<K, V> {
    /// What an entry takes beside what its value refers to. Maps and vectors have up to twice the room that they need,
    /// and every allocation takes some bytes more.
    const OVERHEAD: usize =
        size_of::<Entry<V>>() + 2 * (2 * size_of::<K>() + size_of::<usize>() + 1) + 4 * 16;

    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::default(),
            ring: Vec::new(),
            hand: 0,
            bytes: 0,
            hits: 0,
            misses: 0,
        }
    }

    pub(super) fn entry(ticket: Ticket, owner: &str, value: V, bytes: usize) -> Box<Entry<V>> {
        Box::new(Entry {
            ticket,
            is_used: false,
            place: 0,
            bytes: Self::OVERHEAD + owner.len() + bytes,
            owner: owner.into(),
            value,
        })
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&mut Entry<V>> {
        self.entries.get_mut(key).map(|entry| &mut **entry)
    }

    /// Inserts an entry, or replaces the one with this key, and evicts others so that the shard has at most
    /// `max_bytes`. What is not `current` goes first. Returns what it has removed.
    pub(super) fn insert(
        &mut self,
        key: K,
        mut entry: Box<Entry<V>>,
        max_bytes: usize,
        is_current: impl Fn(Ticket) -> bool,
    ) -> Vec<Box<Entry<V>>> {
        let mut removed = Vec::new();
        removed.extend(self.remove(&key));
        let mut chances = MAX_CHANCES;
        while self.bytes + entry.bytes > max_bytes && !self.ring.is_empty() {
            self.hand %= self.ring.len();
            let key = self.ring[self.hand];
            match self.entries.get_mut(&key) {
                Some(entry) if entry.is_used && chances > 0 && is_current(entry.ticket) => {
                    entry.is_used = false;
                    chances -= 1;
                    self.hand += 1;
                }
                _ => removed.extend(self.remove(&key)),
            }
        }
        entry.place = self.ring.len();
        self.ring.push(key);
        self.bytes += entry.bytes;
        self.entries.insert(key, entry);
        removed
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove(&mut self, key: &K) -> Option<Box<Entry<V>>> {
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.bytes;
        self.ring.swap_remove(entry.place);
        if let Some(moved) = self.ring.get(entry.place)
            && let Some(moved) = self.entries.get_mut(moved)
        {
            moved.place = entry.place;
        }
        Some(entry)
    }
}

impl<V> Entry<V> {
    pub(super) fn is_of(&self, owner: &str) -> bool {
        *self.owner == *owner
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The value, which counts as used.
    pub(super) fn used(&mut self) -> &V {
        self.is_used = true;
        &self.value
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        const ODD: u128 = 0x9E37_79B9_7F4A_7C15;
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            let product = u128::from(self.0 ^ u64::from_le_bytes(word)) * ODD;
            self.0 = (product as u64) ^ (product >> 64) as u64;
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length of a key, which is always the same.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
