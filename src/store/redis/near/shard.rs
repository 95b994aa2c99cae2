//! A part of a table: a map with a bound, from which CLOCK evicts (F. J. Corbató, *A Paging Experiment with the Multics
//! System*, 1968).
//!
//! A hand goes round the entries. It evicts the first one that has not been used since it last came by.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use hashbrown::HashTable;

/// The most entries that get a second chance in a row, so that the shard is not locked for long.
const MAX_CHANCES: u32 = 64;

/// The hashing of keys that are hashes already.
type IdHashing = BuildHasherDefault<IdHasher>;

/// An owner, and its version at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The hash of the owner, by a secret key: it stands for the owner.
    pub(super) owner: u64,
    pub(super) version: u64,
}

pub(super) struct Shard<K, V> {
    /// The entries themselves and not boxes, because each thing to look at is a cache miss.
    entries: HashTable<Entry<K, V>>,
    /// The keys of all entries, in no order that matters.
    ring: Vec<K>,
    hand: usize,
    bytes: usize,
    /// How many reads have found something, and how many have not.
    pub(super) hits: u64,
    pub(super) misses: u64,
}

pub(super) struct Entry<K, V> {
    key: K,
    ticket: Ticket,
    /// The place in the ring.
    place: u32,
    bytes: u32,
    /// Whether it was used since the hand last came by.
    is_used: bool,
    value: V,
}

/// Mixes the bytes of a hash, which need no strong hash of their own.
#[derive(Default)]
struct IdHasher(u64);

impl<K: Copy + Eq + Hash, V> Shard<K, V> {
    /// What an entry takes beside what its value refers to. A table has up to 16/7 times the room that it needs, a
    /// vector up to twice, and every allocation takes some bytes more.
    const OVERHEAD: usize = (size_of::<Entry<K, V>>() + 1) * 16 / 7 + 2 * size_of::<K>() + 4 * 16;

    pub(super) fn new() -> Self {
        Self {
            entries: HashTable::new(),
            ring: Vec::new(),
            hand: 0,
            bytes: 0,
            hits: 0,
            misses: 0,
        }
    }

    /// What an entry takes, with so many bytes that its value refers to.
    pub(super) fn size(bytes: usize) -> usize {
        Self::OVERHEAD + bytes
    }

    /// The entry with this key, whose owner has this hash.
    pub(super) fn get(&mut self, key: &K, owner: u64) -> Option<&mut Entry<K, V>> {
        let is_it = |entry: &Entry<K, V>| entry.key == *key && entry.ticket.owner == owner;
        self.entries.find_mut(hash(key), is_it)
    }

    /// Inserts an entry, or replaces the one with this key, and evicts others so that the shard has at most
    /// `max_bytes`. What is not `current` goes first. Returns what it has removed.
    pub(super) fn insert(
        &mut self,
        key: K,
        ticket: Ticket,
        value: V,
        bytes: usize,
        max_bytes: usize,
        is_current: impl Fn(Ticket) -> bool,
    ) -> Vec<Entry<K, V>> {
        let bytes = Self::size(bytes);
        let mut removed = Vec::new();
        removed.extend(self.remove(&key));
        let mut chances = MAX_CHANCES;
        while self.bytes + bytes > max_bytes && !self.ring.is_empty() {
            self.hand %= self.ring.len();
            let key = self.ring[self.hand];
            match self.find(&key) {
                Some(entry) if entry.is_used && chances > 0 && is_current(entry.ticket) => {
                    entry.is_used = false;
                    chances -= 1;
                    self.hand += 1;
                }
                _ => removed.extend(self.remove(&key)),
            }
        }
        let entry = Entry {
            key,
            ticket,
            // A shard has a few MiB at most.
            place: self.ring.len() as u32,
            bytes: bytes as u32,
            is_used: false,
            value,
        };
        self.ring.push(key);
        self.bytes += bytes;
        let by_key = |entry: &Entry<K, V>| hash(&entry.key);
        self.entries.insert_unique(hash(&key), entry, by_key);
        removed
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn find(&mut self, key: &K) -> Option<&mut Entry<K, V>> {
        self.entries.find_mut(hash(key), |entry| entry.key == *key)
    }

    fn remove(&mut self, key: &K) -> Option<Entry<K, V>> {
        let is_it = |entry: &Entry<K, V>| entry.key == *key;
        let found = self.entries.find_entry(hash(key), is_it).ok()?;
        let (entry, _) = found.remove();
        self.bytes -= entry.bytes as usize;
        self.ring.swap_remove(entry.place as usize);
        if let Some(moved) = self.ring.get(entry.place as usize).copied()
            && let Some(moved) = self.find(&moved)
        {
            moved.place = entry.place;
        }
        Some(entry)
    }
}

/// The hash of a key.
pub(super) fn hash(key: &impl Hash) -> u64 {
    IdHashing::default().hash_one(key)
}

impl<K, V> Entry<K, V> {
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
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
