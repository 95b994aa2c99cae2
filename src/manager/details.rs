//! The details of users, decoded once for each version that the store has.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::slot::Slot;

/// How many users are remembered at most.
const PLACES: usize = 4096;
/// Longer values are decoded each time: nobody should wonder where the memory went.
const MAX_LEN: usize = 4096;

/// What was decoded last, for a place each: users whose hashes meet take turns.
///
/// Cached values are never the same twice (see [`slot`](super::slot)), so those that are equal mean the same.
pub(super) struct Details<D> {
    places: Box<[Mutex<Option<Decoded<D>>>]>,
    hasher: RandomState,
}

struct Decoded<D> {
    user_id: Arc<str>,
    value: Bytes,
    detail: Arc<D>,
}

impl<D> Details<D> {
    pub(super) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl<D: DeserializeOwned> Details<D> {
    /// What a cached value of this user says.
    pub(super) fn decode(&self, user_id: &Arc<str>, value: &Bytes) -> Slot<Arc<D>> {
        let place = self.hasher.hash_one(user_id) as usize % PLACES;
        let place = || {
            // Nothing is done under this lock that could panic halfway.
            self.places[place]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(last) = &*place()
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
                value: value.clone(),
                detail: Arc::clone(detail),
            };
            // The one before is dropped after the lock: what it does then is its own business.
            let _before = place().replace(decoded);
        }
        slot
    }
}
