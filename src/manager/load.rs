//! Single-flight loading of users into the store's cache.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{runtime::Handle, sync::watch};

use super::{
    background::spawn,
    loader::{Loader, UserToCache},
    slot::{self, MARKER_TTL, Slot},
};
use crate::{
    Error,
    store::{ErasedStore, PutMode},
    sync::{AtomicU64, Mutex, Ordering, lock},
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

/// A user's detail, if there is such a user.
type Loaded<D> = Result<Option<Arc<D>>, Error>;
type Outcome<D> = watch::Receiver<Option<Loaded<D>>>;
/// A user, and the cached value that was missing or outdated. Loads that saw different values do not share: one of them
/// began before an invalidation, the other after it.
type FlightKey = (Arc<str>, Option<Bytes>);
type Flights<D> = Mutex<HashMap<FlightKey, InFlight<D>>>;

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
        let mut flight = Flight {
            flights: Arc::clone(&self.flights),
            key: None,
            in_flight: InFlight {
                outcome: outcome.clone(),
                ttl: SharedTtl::new(ttl),
            },
        };
        if let Some(other) = flight.register(key) {
            return other;
        }
        let (source, store) = (Arc::clone(&self.source), Arc::clone(store));
        // A detached task, so that dropping one caller does not cancel the load for the others.
        spawn(&Handle::current(), async move {
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
            let (seen, _) = claim(store, user_id).await?;
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
        let seen = loop {
            let Ok((value, found)) = claim(store, user_id).await else {
                break None;
            };
            // Between the caller's lookup and this flight, another flight may have ended …
            if let Some(cached) = decode(user_id, Some(&value)) {
                return Ok(cached);
            }
            let key = (Arc::clone(user_id), Some(value.clone()));
            let had_key = flight.key.as_ref() == Some(&key);
            // … or started …
            if let Some(other) = flight.rekey(key) {
                return wait(other).await;
            }
            // … or both, after this value was found: only a lookup under its key detects that.
            if had_key || !found {
                break Some(value);
            }
        };
        let loaded = self.loader.load(user_id).await?;
        // The loaded user is valid even if the store cannot cache it, for example because it is out of memory.
        if let Some(seen) = seen {
            let mut ttl = flight.in_flight.ttl.get();
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

/// Returns the cached value and `true`, or writes a marker and returns it with `false`.
async fn claim(store: &dyn ErasedStore, user_id: &str) -> Result<(Bytes, bool), Error> {
    loop {
        if let Some(value) = store.get_user(user_id).await? {
            return Ok((value, true));
        }
        let marker = slot::marker()?;
        let mode = PutMode::IfUnchanged(None);
        if store.put_user(user_id, &marker, MARKER_TTL, mode).await? {
            return Ok((marker.into(), false));
        }
    }
}

/// Waits for the outcome of a flight.
async fn wait<D>(mut outcome: Outcome<D>) -> Loaded<D> {
    match outcome.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(loaded)) => loaded.clone(),
        _ => Err(Error::load_interrupted()),
    }
}

fn decode<D: DeserializeOwned>(user_id: &str, value: Option<&[u8]>) -> Option<Option<Arc<D>>> {
    match Slot::decode(user_id, value) {
        Slot::User(detail) => Some(Some(Arc::new(detail))),
        Slot::NoSuchUser => Some(None),
        Slot::Vacant => None,
    }
}

/// A load that other callers can join; dropping it removes it from the flights.
struct Flight<D> {
    flights: Arc<Flights<D>>,
    key: Option<FlightKey>,
    in_flight: InFlight<D>,
}

/// The state that all callers of a load share.
struct InFlight<D> {
    outcome: Outcome<D>,
    ttl: SharedTtl,
}

impl<D> Clone for InFlight<D> {
    fn clone(&self) -> Self {
        Self {
            outcome: self.outcome.clone(),
            ttl: self.ttl.clone(),
        }
    }
}

/// The shortest ttl of all callers of a load, in whole milliseconds.
#[derive(Clone)]
struct SharedTtl(Arc<AtomicU64>);

impl SharedTtl {
    fn new(ttl: Duration) -> Self {
        // The cast is lossless up to `MAX_TTL`.
        Self(Arc::new(AtomicU64::new(ttl.as_millis() as u64)))
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn shorten_to(&self, other: &Self) {
        let other = other.0.load(Ordering::Relaxed);
        self.0.fetch_min(other, Ordering::Relaxed);
    }
}

impl<D> Flight<D> {
    /// Registers this flight under `key`, or joins the flight that is already registered there.
    fn register(&mut self, key: FlightKey) -> Option<Outcome<D>> {
        let mut flights = lock(&self.flights);
        if let Some(other) = flights.get(&key) {
            other.ttl.shorten_to(&self.in_flight.ttl);
            return Some(other.outcome.clone());
        }
        flights.insert(key.clone(), self.in_flight.clone());
        self.key = Some(key);
        None
    }

    /// Moves this flight to the key of the value that the load depends on, or joins the flight that has that key.
    ///
    /// Afterwards, callers that saw another value do not join: that value may be newer.
    fn rekey(&mut self, key: FlightKey) -> Option<Outcome<D>> {
        if self.key.as_ref() == Some(&key) {
            return None;
        }
        self.leave();
        self.register(key)
    }

    /// Removes this flight, unless a caller joined with less than `ttl`; returns the shorter ttl in that case.
    fn leave_unless_shortened(&mut self, ttl: Duration) -> Option<Duration> {
        // The lock keeps callers from joining between the check of the ttl and the removal.
        let mut flights = lock(&self.flights);
        let shortest = self.in_flight.ttl.get();
        if shortest < ttl {
            return Some(shortest);
        }
        if let Some(key) = self.key.take() {
            flights.remove(&key);
        }
        None
    }

    fn leave(&mut self) {
        if let Some(key) = self.key.take() {
            lock(&self.flights).remove(&key);
        }
    }
}

impl<D> Drop for Flight<D> {
    fn drop(&mut self) {
        self.leave();
    }
}
