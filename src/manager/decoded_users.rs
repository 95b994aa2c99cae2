//! Decoded user details, which are decoded once per cached value: beside the value, if the store keeps it in the
//! process, and for other stores in a cache.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::slot::Slot;
use crate::store::CachedUser;

/// The maximum number of cached details.
const SHARDS: usize = 1024;
/// The maximum length of a value whose detail is kept, in bytes; it bounds the memory use.
const MAX_LEN: usize = 2048;

/// The most recently decoded detail of each shard; users whose hashes collide replace each other.
///
/// Equal values of one user have equal details, because no value is ever written twice (see [`slot`](super::slot)).
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

impl<D: DeserializeOwned + Send + Sync + 'static> DecodedUsers<D> {
    /// Decodes a cached value of this user, or returns the detail that was decoded from it before.
    pub(super) fn decode(&self, user_id: &Arc<str>, user: &CachedUser) -> Slot<Arc<D>> {
        if let Some(detail) = user.detail() {
            return Slot::User(detail);
        }
        let slot = self.decode_value(user_id, user.value());
        if let Slot::User(detail) = &slot {
            user.keep_detail(detail);
        }
        slot
    }

    /// The same for the value itself, which the store need not keep.
    fn decode_value(&self, user_id: &Arc<str>, value: &Bytes) -> Slot<Arc<D>> {
        let make = || (0..SHARDS).map(|_| Mutex::default()).collect();
        let shard = self.hasher.hash_one(user_id) as usize % SHARDS;
        let shard = &self.shards.get_or_init(make)[shard];
        // No code that holds the lock can panic in the middle of a change.
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
                // A copy, because the value may be a slice of a large buffer.
                value: Bytes::copy_from_slice(value),
                detail: Arc::clone(detail),
            };
            // Dropped after the lock is released, because `D::drop` is the application's code.
            let _before = shard().replace(decoded);
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::slot::encode;

    #[test]
    fn a_version_of_a_user_of_up_to_2_kib_is_decoded_once() {
        let (users, id) = (DecodedUsers::<String>::new(), Arc::from("al"));
        let decode = |user: &CachedUser| match users.decode(&id, user) {
            Slot::User(detail) => detail,
            Slot::NoSuchUser | Slot::Vacant => panic!("it is a user"),
        };
        let version = |detail: String| Bytes::from(encode(&id, Some(&detail), 10_000).unwrap());
        let (short, other) = (version("a".to_owned()), version("b".to_owned()));
        let read = |value: &Bytes| decode(&value.clone().into());
        assert!(Arc::ptr_eq(&read(&short), &read(&short)));
        assert_eq!(*read(&other), "b");
        let long = version("a".repeat(MAX_LEN));
        assert!(!Arc::ptr_eq(&read(&long), &read(&long)));
        // A store that keeps a value bounds its own memory.
        let kept = CachedUser::kept(long);
        assert!(Arc::ptr_eq(&decode(&kept), &decode(&kept.clone())));
    }

    /// Managers of several types may share a store.
    #[test]
    fn a_kept_value_is_decoded_for_every_type() {
        let (texts, values) = (
            DecodedUsers::<String>::new(),
            DecodedUsers::<serde_json::Value>::new(),
        );
        let id = Arc::from("al");
        let user = CachedUser::kept(encode(&id, Some(&"a".to_owned()), 100).unwrap().into());
        for _ in 0..2 {
            assert!(matches!(texts.decode(&id, &user), Slot::User(text) if *text == "a"));
            assert!(matches!(values.decode(&id, &user), Slot::User(value) if *value == "a"));
        }
    }
}
