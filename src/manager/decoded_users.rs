//! Decoded user details, which are decoded once per cached value: beside the value, if the store keeps it in the
//! process, and for other stores in a cache.

use std::{
    hash::RandomState,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};
use serde::de::DeserializeOwned;

use super::slot::Slot;
use crate::store::CachedUser;

/// The size of the cache, in bytes: about what its entries take.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// About what a usual entry takes.
const USUAL_BYTES: u64 = 512;
/// The number of parts with a lock each.
const SHARDS: usize = 16;
/// What an entry takes beside the user id, the value and the detail.
const OVERHEAD: u64 = 256;

/// The decoded details of the users that were checked lately.
///
/// Equal values of one user have equal details, because no value is ever written twice (see [`slot`](super::slot)).
pub(super) struct DecodedUsers<D>(OnceLock<Details<D>>);

type Details<D> = Cache<Arc<str>, Arc<Decoded<D>>, Bytewise, RandomState, DropLater>;

struct Decoded<D> {
    value: Bytes,
    detail: Arc<D>,
}

#[derive(Clone)]
struct Bytewise;

impl<D> Weighter<Arc<str>, Arc<Decoded<D>>> for Bytewise {
    fn weight(&self, user_id: &Arc<str>, decoded: &Arc<Decoded<D>>) -> u64 {
        // The detail takes about as much as the value.
        OVERHEAD + (user_id.len() + 2 * decoded.value.len()) as u64
    }
}

/// Drops what is evicted when the cache is unlocked: the detail is of a type of the application's.
#[derive(Clone)]
struct DropLater;

impl<K, V> Lifecycle<K, V> for DropLater {
    type RequestState = Vec<(K, V)>;

    fn on_evict(&self, state: &mut Self::RequestState, key: K, value: V) {
        state.push((key, value));
    }
}

impl<D> DecodedUsers<D> {
    pub(super) fn new() -> Self {
        Self(OnceLock::new())
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
        let make = || {
            let options = OptionsBuilder::new()
                .estimated_items_capacity((MAX_BYTES / USUAL_BYTES) as usize)
                .weight_capacity(MAX_BYTES)
                .shards(SHARDS)
                .build();
            let options = options.expect("all that is needed is set");
            Cache::with_options(options, Bytewise, RandomState::new(), DropLater)
        };
        let cache = self.0.get_or_init(make);
        if let Some(last) = cache.get(user_id)
            && last.value == value
        {
            return Slot::User(Arc::clone(&last.detail));
        }
        let slot = Slot::decode(user_id, Some(value)).map(Arc::new);
        if let Slot::User(detail) = &slot {
            let decoded = Decoded {
                // A copy, because the value may be a slice of a large buffer.
                value: Bytes::copy_from_slice(value),
                detail: Arc::clone(detail),
            };
            cache.insert(Arc::clone(user_id), Arc::new(decoded));
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::slot::encode;

    fn id(n: usize) -> Arc<str> {
        format!("user-{n}").into()
    }

    fn version(id: &Arc<str>, detail: &str) -> Bytes {
        Bytes::from(encode(id, Some(&detail.to_owned()), usize::MAX).unwrap())
    }

    fn decode(users: &DecodedUsers<String>, id: &Arc<str>, user: &CachedUser) -> Arc<String> {
        match users.decode(id, user) {
            Slot::User(detail) => detail,
            Slot::NoSuchUser | Slot::Vacant => panic!("it is a user"),
        }
    }

    #[test]
    fn a_version_of_a_user_is_decoded_once() {
        let (users, id) = (DecodedUsers::new(), id(0));
        let versions = ["a", "b"].map(|detail| version(&id, detail));
        let read = |value: &Bytes| decode(&users, &id, &value.clone().into());
        assert!(Arc::ptr_eq(&read(&versions[0]), &read(&versions[0])));
        assert_eq!(*read(&versions[1]), "b");
        assert_eq!(*read(&versions[0]), "a");
        // A store that keeps a value bounds its own memory.
        let kept = CachedUser::kept(versions[0].clone());
        let again = decode(&users, &id, &kept.clone());
        assert!(Arc::ptr_eq(&decode(&users, &id, &kept), &again));
    }

    #[test]
    fn ten_thousand_users_are_decoded_once_each() {
        let users = DecodedUsers::new();
        let all: Vec<_> = (0..10_000)
            .map(|n| {
                (
                    id(n),
                    CachedUser::from(version(&id(n), "a name and a role")),
                )
            })
            .collect();
        let read = || all.iter().map(|(id, user)| decode(&users, id, user));
        let first: Vec<_> = read().collect();
        assert!(
            read()
                .zip(&first)
                .all(|(again, first)| Arc::ptr_eq(&again, first))
        );
    }

    #[test]
    fn the_memory_is_bounded() {
        let users = DecodedUsers::new();
        let detail = "x".repeat(10_000);
        for n in 0..5_000 {
            decode(&users, &id(n), &version(&id(n), &detail).into());
            assert!(users.0.get().unwrap().weight() <= MAX_BYTES);
        }
        assert!(users.0.get().unwrap().weight() > MAX_BYTES / 2);
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
