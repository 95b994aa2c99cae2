//! The suite of the `SessionStore` contract, on every store.
//!
//! Races of whole logins and logouts are in `races`, and random sequences of calls are in `model`.

use tower_bearer_session::{MemoryStore, store_conformance_tests, test_util::Faults};

macro_rules! on_stores {
    ($($kind:ident: $backend:ident),* $(,)?) => {
        $(
            mod $kind {
                use crate::stores::{$backend, Backend};

                tower_bearer_session::store_conformance_tests!($backend::start);
            }
        )*
    };
}

on_stores!(
    memory: Memory,
    redis: Redis,
    valkey: Valkey,
    mysql: MySql,
    near: Near,
    near_per_key: NearPerKey,
    tls: Tls,
    sentinel: Sentinel,
    cluster: Cluster,
);

/// A pointer to a store is a store.
mod pointers {
    use std::sync::Arc;

    use super::{MemoryStore, store_conformance_tests};

    store_conformance_tests!(async || Arc::new(Box::new(MemoryStore::new())));
}

/// A wrapper changes nothing on its own.
mod wrapped {
    use super::{Faults, MemoryStore, store_conformance_tests};

    store_conformance_tests!(async || Faults::new().wrap(MemoryStore::new()));
}
