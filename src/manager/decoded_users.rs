//! The details of users, decoded once for each version that the store has.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::slot::Slot;

/// How many users are remembered at most.
const SHARDS: usize = 1024;
/// Longer values, in bytes, are decoded each time: nobody should wonder where the memory went.
const MAX_LEN: usize = 2048;

/// What was decoded last, in a place each: users whose hashes meet take turns.
///
/// Equal values of one user mean the same; a value is written anew whenever the user is (see [`slot`](super::slot)).
pub(super) struct DecodedUsers<D> {
    shards: OnceLock<Box<[Shard<D>]>>,
    hasher: RandomState,
}

type Shard<D> = Mutex<Option<Decoded<D>>>;

struct Decoded<D> {
    user_id: Arc<str>,
    value: Bytes,
    detail: Arc<D>,
}

impl<D> DecodedUsers<D> {
    pub(super) fn new() -> Self {
        Self {
            shards: OnceLock::new(),
            hasher: RandomState::new(),
        }
    }
}

impl<D: DeserializeOwned> DecodedUsers<D> {
    /// What a cached value of this user says.
    pub(super) fn decode(&self, user_id: &Arc<str>, value: &Bytes) -> Slot<Arc<D>> {
        let make = || (0..SHARDS).map(|_| Mutex::default()).collect();
        let shard = self.hasher.hash_one(user_id) as usize % SHARDS;
        let shard = &self.shards.get_or_init(make)[shard];
        // Nothing is done under this lock that could panic halfway.
        let shard = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*shard()
            && last.value == value
            && last.user_id == *user_id
        {
            return Slot::User(Arc::clone(&last.detail));
        }
        let slot = Slot::decode(user_id, Some(value)).map(Arc::new);
        if let Slot::User(detail) = &slot
            && value.len() <= MAX_LEN
        {
            let decoded = Decoded {
                user_id: Arc::clone(user_id),
                // It may be a piece of something large.
                value: Bytes::copy_from_slice(value),
                detail: Arc::clone(detail),
            };
            // The one before is dropped after the lock: what it does then is its own business.
            let _before = shard().replace(decoded);
        }
        slot
    }
}
