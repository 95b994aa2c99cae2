//! The loads of users that are in flight, and those who join them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    Error,
    sync::{AtomicU64, Mutex, Ordering, lock, watch},
};

/// A user's detail, if there is such a user.
pub(super) type Loaded<D> = Result<Option<Arc<D>>, Error>;
pub(super) type Outcome<D> = watch::Receiver<Option<Loaded<D>>>;
/// A user, and the cached value that was missing or outdated. Loads that saw different values do not share: one of them
/// began before an invalidation, the other after it.
pub(super) type FlightKey = (Arc<str>, Option<Bytes>);
pub(super) type Flights<D> = Mutex<HashMap<FlightKey, InFlight<D>>>;

/// A load that other callers can join, by all of its keys; dropping it removes it from the flights.
pub(super) struct Flight<D> {
    flights: Arc<Flights<D>>,
    keys: Vec<FlightKey>,
    in_flight: InFlight<D>,
}

/// The state that all callers of a load share.
pub(super) struct InFlight<D> {
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
    /// A flight that is not registered yet.
    pub(super) fn new(flights: &Arc<Flights<D>>, outcome: Outcome<D>, ttl: Duration) -> Self {
        Self {
            flights: Arc::clone(flights),
            keys: Vec::new(),
            in_flight: InFlight {
                outcome,
                ttl: SharedTtl::new(ttl),
            },
        }
    }

    /// The shortest ttl of those who have joined so far.
    pub(super) fn ttl(&self) -> Duration {
        self.in_flight.ttl.get()
    }

    pub(super) fn has_key(&self, key: &FlightKey) -> bool {
        self.keys.contains(key)
    }

    /// Registers this flight under `key`, too, or joins the flight that is already registered there.
    pub(super) fn register(&mut self, key: FlightKey) -> Option<Outcome<D>> {
        let mut flights = lock(&self.flights);
        if let Some(other) = flights.get(&key) {
            other.ttl.shorten_to(&self.in_flight.ttl);
            return Some(other.outcome.clone());
        }
        flights.insert(key.clone(), self.in_flight.clone());
        self.keys.push(key);
        None
    }

    /// Moves this flight to the key of the value that the load depends on, or joins the flight that has that key.
    pub(super) fn rekey(&mut self, key: FlightKey) -> Option<Outcome<D>> {
        self.leave_all_but(&key);
        if self.has_key(&key) {
            return None;
        }
        self.register(key)
    }

    /// Removes this flight, unless a caller joined with less than `ttl`; returns the shorter ttl in that case.
    pub(super) fn leave_unless_shortened(&mut self, ttl: Duration) -> Option<Duration> {
        // The lock keeps callers from joining between the check of the ttl and the removal.
        let mut flights = lock(&self.flights);
        let shortest = self.ttl();
        if shortest < ttl {
            return Some(shortest);
        }
        for key in self.keys.drain(..) {
            flights.remove(&key);
        }
        None
    }

    /// Removes this flight from the other keys: callers that saw another value do not join any more, because that value
    /// may be newer.
    pub(super) fn leave_all_but(&mut self, kept: &FlightKey) {
        let mut flights = lock(&self.flights);
        for key in self.keys.extract_if(.., |key| key != kept) {
            flights.remove(&key);
        }
    }
}

impl<D> Drop for Flight<D> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        for key in self.keys.drain(..) {
            flights.remove(&key);
        }
    }
}

/// Waits for the outcome of a flight.
pub(super) async fn wait<D>(mut outcome: Outcome<D>) -> Loaded<D> {
    match outcome.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(loaded)) => loaded.clone(),
        _ => Err(Error::load_interrupted()),
    }
}
