//! What the threads of a model share: a database with one user, who has the number of the last change as a detail; a
//! loader that reads him; a store that caches him; and a manager that checks his tokens.

use std::{cell::Cell, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    background::{run, step},
    load::SingleFlight,
    loader::{Load, Loader, UserToCache},
    slot::{self, MARKER_TTL, Slot},
};
use crate::{
    Error,
    store::{BoxFuture, ErasedStore, PutMode},
    sync::{AtomicU64, Mutex, Ordering, lock},
};

/// What does not work.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) reads: bool,
    pub(super) writes: bool,
    pub(super) loads: bool,
    /// Loaded users cannot be written, but markers can.
    pub(super) users: bool,
    /// What is written is not kept.
    pub(super) memory: bool,
}

pub(super) struct World {
    user_id: Arc<str>,
    database: Arc<Database>,
    store: Arc<Store>,
    manager: SingleFlight<u64>,
    /// The last change after which the cached user was deleted.
    announced: AtomicU64,
}

struct Database {
    changed: AtomicU64,
    loads: Mutex<Loads>,
    fails: bool,
}

/// Loads of the user, without those that were dropped.
#[derive(Clone, Copy, Default)]
pub(super) struct Loads {
    pub(super) running: usize,
    pub(super) most: usize,
    pub(super) begun: usize,
}

struct Running<'a>(&'a Database);

struct Store {
    /// The user's value and its ttl.
    value: Mutex<Option<(Bytes, Duration)>>,
    faults: Faults,
}

loom::thread_local! {
    /// Whether this thread has found the user in the store.
    static HAS_HIT: Cell<bool> = Cell::new(false);
}

impl World {
    pub(super) fn new(faults: Faults) -> Arc<Self> {
        let database = Arc::new(Database {
            changed: AtomicU64::new(0),
            loads: Mutex::default(),
            fails: faults.loads,
        });
        let loader = Loader(Box::new(Arc::clone(&database)));
        let value = Mutex::new(None);
        Arc::new(Self {
            user_id: "al".into(),
            database,
            store: Arc::new(Store { value, faults }),
            manager: SingleFlight::new(loader, Duration::ZERO),
            announced: AtomicU64::new(0),
        })
    }

    /// Checks a token: finds the user in the cache, or loads him. What a check finds is not older than a change that
    /// was announced before it. Returns whether the user was in the cache.
    pub(super) fn check(&self, ttl: Duration) -> Result<bool, Error> {
        let announced = self.announced.load(Ordering::SeqCst);
        let seen = lock(&self.store.value).clone().map(|(value, _)| value);
        let (found, was_cached) = match decode(seen.as_ref()) {
            Some(found) => (found, true),
            None => {
                let store: Arc<dyn ErasedStore> = self.store.clone();
                HAS_HIT.with(|has| has.set(false));
                let loaded = run(self.manager.fill(&store, &self.user_id, seen, ttl))?;
                (*loaded.expect("a user"), HAS_HIT.with(Cell::get))
            }
        };
        assert!(found >= announced, "{found} was found after {announced}");
        Ok(was_cached)
    }

    /// Replaces the cached user, who is then not older than the database was when this was called.
    pub(super) fn replace(&self, ttl: Duration) -> Result<(), Error> {
        let changed = self.database.changed.load(Ordering::SeqCst);
        let loaded = run(self.manager.replace(&*self.store, &self.user_id, ttl))?;
        assert!(*loaded.expect("a user") >= changed, "an old user");
        self.announced.fetch_max(changed, Ordering::SeqCst);
        Ok(())
    }

    /// Changes the user, without telling the cache.
    pub(super) fn change(&self, to: u64) {
        self.database.changed.store(to, Ordering::SeqCst);
    }

    /// Changes the user and then deletes the cached one, as `delete_user` does.
    pub(super) fn change_and_delete(&self, to: u64) {
        self.change(to);
        let marker = slot::marker().expect("a marker");
        self.store.put(&marker, MARKER_TTL, PutMode::Replace);
        self.announced.fetch_max(to, Ordering::SeqCst);
    }

    /// Lets the cached value expire.
    pub(super) fn expire(&self) {
        *lock(&self.store.value) = None;
    }

    /// What is cached in the end, with its ttl, and all loads. Nobody is left in the manager.
    pub(super) fn end(&self) -> (Option<(u64, Duration)>, Loads) {
        assert_eq!(
            Arc::strong_count(&self.user_id),
            1,
            "a flight that has not ended"
        );
        let loads = *lock(&self.database.loads);
        assert_eq!(loads.running, 0);
        let cached = lock(&self.store.value).clone();
        let cached = cached.and_then(|(value, ttl)| Some((decode(Some(&value))?, ttl)));
        let announced = self.announced.load(Ordering::SeqCst);
        assert!(
            cached.is_none_or(|(user, _)| user >= announced),
            "{cached:?} after {announced}"
        );
        (cached, loads)
    }
}

impl Load<u64> for Arc<Database> {
    fn load(&self) -> BoxFuture<'_, UserToCache<u64>> {
        Box::pin(async {
            let _running = Running::begin(self);
            let detail = self.changed.load(Ordering::SeqCst);
            step().await;
            if self.fails {
                return Err(Error::Loader);
            }
            let value = slot::encode(&detail);
            let detail = Some(Arc::new(detail));
            Ok(UserToCache { detail, value })
        })
    }
}

impl<'a> Running<'a> {
    fn begin(database: &'a Database) -> Self {
        let mut loads = lock(&database.loads);
        loads.begun += 1;
        loads.running += 1;
        loads.most = loads.most.max(loads.running);
        Self(database)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.0.loads).running -= 1;
    }
}

impl Store {
    fn put(&self, value: &[u8], ttl: Duration, mode: PutMode<'_>) -> bool {
        let mut current = lock(&self.value);
        let put = match mode {
            PutMode::Replace => true,
            PutMode::IfUnchanged(seen) => current.as_ref().map(|(value, _)| &**value) == seen,
        };
        if put && !self.faults.memory {
            *current = Some((Bytes::copy_from_slice(value), ttl));
        }
        put
    }
}

impl ErasedStore for Store {
    fn get_user<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Bytes>> {
        Box::pin(async {
            if self.faults.reads {
                return Err(Error::Fault);
            }
            let value = lock(&self.value).clone().map(|(value, _)| value);
            if decode(value.as_ref()).is_some() {
                HAS_HIT.with(|has| has.set(true));
            }
            step().await;
            Ok(value)
        })
    }

    fn put_user<'a>(
        &'a self,
        _: &'a str,
        value: &'a [u8],
        ttl: Duration,
        mode: PutMode<'a>,
    ) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let is_marker = value.starts_with(b"!");
            if self.faults.writes || (self.faults.users && !is_marker) {
                return Err(Error::Fault);
            }
            let put = self.put(value, ttl, mode);
            step().await;
            Ok(put)
        })
    }
}

fn decode(value: Option<&Bytes>) -> Option<u64> {
    match Slot::decode("al", value.map(|value| &**value)) {
        Slot::User(user) => Some(user),
        Slot::NoSuchUser | Slot::Vacant => None,
    }
}
