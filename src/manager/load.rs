//! Single-flight loading of users into the store's cache.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    background::spawn_here,
    flight::{Flight, FlightKey, Flights, Loaded, Outcome, wait},
    loader::{Loader, UserToCache},
    slot::{self, MARKER_TTL, Slot},
};
use crate::{
    Error,
    store::{ErasedStore, PutMode},
    sync::watch,
};

/// The maximum number of attempts of [`SingleFlight::replace`], which starts over after a concurrent write.
const REPLACE_ATTEMPTS: usize = 8;

/// Loads users into the store's cache, each at most once at a time.
pub(super) struct SingleFlight<D> {
    source: Arc<Source<D>>,
    flights: Arc<Flights<D>>,
}

struct Source<D> {
    loader: Loader<D>,
    missing_ttl: Duration,
}

impl<D> SingleFlight<D> {
    pub(super) fn new(loader: Loader<D>, missing_ttl: Duration) -> Self {
        Self {
            source: Arc::new(Source {
                loader,
                missing_ttl,
            }),
            flights: Arc::default(),
        }
    }
}

impl<D> Clone for SingleFlight<D> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            flights: Arc::clone(&self.flights),
        }
    }
}

impl<D: Serialize + DeserializeOwned + Send + Sync + 'static> SingleFlight<D> {
    /// Loads a user whose cached value `seen` was missing or outdated, and caches the answer unless the cached
    /// value has changed since. Joins a load that is in flight for the same, and is then cached for the shortest `ttl`
    /// of those who joined: nobody's user is kept longer than asked for.
    pub(super) async fn fill(
        &self,
        store: &Arc<dyn ErasedStore>,
        user_id: &Arc<str>,
        seen: Option<Bytes>,
        ttl: Duration,
    ) -> Loaded<D> {
        wait(self.join(store, (Arc::clone(user_id), seen), ttl)).await
    }

    /// Joins the flight with this key, or starts one, and returns the receiver of its outcome.
    fn join(&self, store: &Arc<dyn ErasedStore>, key: FlightKey, ttl: Duration) -> Outcome<D> {
        let (sender, outcome) = watch::channel(None);
        let user_id = Arc::clone(&key.0);
        let mut flight = Flight::new(&self.flights, outcome.clone(), ttl);
        if let Some(other) = flight.register(key) {
            return other;
        }
        let (source, store) = (Arc::clone(&self.source), Arc::clone(store));
        // A detached task, so that dropping one caller does not cancel the load for the others.
        spawn_here(async move {
            let loaded = source.fill(&*store, &user_id, &mut flight).await;
            drop(flight);
            // Not `send`, which fails if all callers have been dropped.
            sender.send_replace(Some(loaded));
        });
        outcome
    }

    /// Loads a user and replaces the cached value, unless a newer one came meanwhile.
    pub(super) async fn replace(
        &self,
        store: &dyn ErasedStore,
        user_id: &str,
        ttl: Duration,
    ) -> Loaded<D> {
        let mut attempt = 1;
        loop {
            let seen = claim(store, user_id).await?;
            let loaded = self.source.loader.load(user_id).await?;
            if self.source.put(store, user_id, &loaded, ttl, &seen).await? {
                return Ok(loaded.detail);
            }
            // A concurrent write. On the first attempt, its load may have begun before this call. On the second, its
            // load began with a cached value that is newer than this call.
            if attempt > 1
                && let Some(newer) = decode(user_id, store.get_user(user_id).await?.as_deref())
            {
                return Ok(newer);
            }
            // Invalidated repeatedly: no stale value is cached, and the next check loads.
            if attempt == REPLACE_ATTEMPTS {
                return Ok(loaded.detail);
            }
            attempt += 1;
        }
    }
}

impl<D: Serialize + DeserializeOwned + Send + 'static> Source<D> {
    async fn fill(
        &self,
        store: &dyn ErasedStore,
        user_id: &Arc<str>,
        flight: &mut Flight<D>,
    ) -> Loaded<D> {
        let key = |value: &Bytes| (Arc::clone(user_id), Some(value.clone()));
        let seen = loop {
            let Ok(found) = store.get_user(user_id).await else {
                break None;
            };
            let Some(value) = found else {
                let Ok(marker) = slot::marker().map(Bytes::from) else {
                    break None;
                };
                // Whoever finds the marker finds this flight, too.
                if let Some(other) = flight.register(key(&marker)) {
                    return wait(other).await;
                }
                let mode = PutMode::IfUnchanged(None);
                match store.put_user(user_id, &marker, MARKER_TTL, mode).await {
                    Ok(true) => {
                        flight.leave_all_but(&key(&marker));
                        break Some(marker);
                    }
                    Ok(false) => continue,
                    Err(_) => break None,
                }
            };
            // Between the caller's lookup and this flight, another flight may have ended …
            if let Some(cached) = decode(user_id, Some(&value)) {
                return Ok(cached);
            }
            let had_key = flight.has_key(&key(&value));
            // … or started …
            if let Some(other) = flight.rekey(key(&value)) {
                return wait(other).await;
            }
            // … or both, after this value was found: only a lookup under its key detects that.
            if had_key {
                break Some(value);
            }
        };
        let loaded = self.loader.load(user_id).await?;
        // The loaded user is valid even if the store cannot cache it, for example because it is out of memory.
        if let Some(seen) = seen {
            let mut ttl = flight.ttl();
            let mut expected = &*seen;
            loop {
                match self.put(store, user_id, &loaded, ttl, expected).await {
                    Err(error) if !error.is_fault() => return Err(error),
                    _ => {}
                }
                // A caller that joined during the write may need a shorter ttl than the written one.
                let Some(shorter) = flight.leave_unless_shortened(ttl) else {
                    break;
                };
                (ttl, expected) = (shorter, &loaded.value);
            }
        }
        Ok(loaded.detail)
    }

    /// Caches a loaded user; `false` if the cached value is no longer `seen`.
    async fn put(
        &self,
        store: &dyn ErasedStore,
        user_id: &str,
        user: &UserToCache<D>,
        ttl: Duration,
        seen: &[u8],
    ) -> Result<bool, Error> {
        let ttl = user.detail.as_ref().map_or(self.missing_ttl, |_| ttl);
        let mode = PutMode::IfUnchanged(Some(seen));
        store.put_user(user_id, &user.value, ttl, mode).await
    }
}

/// Returns the cached value, or writes a marker and returns it.
async fn claim(store: &dyn ErasedStore, user_id: &str) -> Result<Bytes, Error> {
    loop {
        if let Some(value) = store.get_user(user_id).await? {
            return Ok(value);
        }
        let marker = slot::marker()?;
        let mode = PutMode::IfUnchanged(None);
        if store.put_user(user_id, &marker, MARKER_TTL, mode).await? {
            return Ok(marker.into());
        }
    }
}

fn decode<D: DeserializeOwned>(user_id: &str, value: Option<&[u8]>) -> Option<Option<Arc<D>>> {
    match Slot::decode(user_id, value) {
        Slot::User(detail) => Some(Some(Arc::new(detail))),
        Slot::NoSuchUser => Some(None),
        Slot::Vacant => None,
    }
}
