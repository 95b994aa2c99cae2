use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, task::JoinSet};
use tower::BoxError;

use super::slot::{self, MARKER_TTL, Slot};
use crate::{
    Error, ErrorKind,
    store::{ErasedStore, PutMode},
};

/// How often [`Loads::replace`] starts over because somebody else wrote while it loaded.
const REPLACE_ATTEMPTS: usize = 8;

/// Where the details of users come from: a database, another service.
///
/// Async closures and functions from the user id to `Result<Option<D>, E>` implement it.
pub trait LoadUser<D>: Send + Sync + 'static {
    /// Loads one user; `Ok(None)` if there is no such user.
    fn load_user(
        &self,
        user_id: String,
    ) -> impl Future<Output = Result<Option<D>, BoxError>> + Send;
}

impl<D, F, Fut, E> LoadUser<D> for F
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<D>, E>> + Send,
    E: Into<BoxError>,
{
    async fn load_user(&self, user_id: String) -> Result<Option<D>, BoxError> {
        self(user_id).await.map_err(Into::into)
    }
}

type Loading<'a, D> = Pin<Box<dyn Future<Output = Result<Option<D>, BoxError>> + Send + 'a>>;

/// The object-safe twin of [`LoadUser`].
pub(super) trait ErasedLoadUser<D>: Send + Sync {
    fn load_user(&self, user_id: String) -> Loading<'_, D>;
}

impl<D: 'static, L: LoadUser<D>> ErasedLoadUser<D> for L {
    fn load_user(&self, user_id: String) -> Loading<'_, D> {
        Box::pin(LoadUser::load_user(self, user_id))
    }
}

/// Loads users into the store's cache, each at most once at a time.
pub(super) struct Loads<D> {
    source: Arc<Source<D>>,
    flights: Arc<Flights<D>>,
}

struct Source<D> {
    loader: Arc<dyn ErasedLoadUser<D>>,
    missing_ttl: Duration,
    timeout: Duration,
}

/// A user's detail, if there is such a user.
type Loaded<D> = Result<Option<Arc<D>>, Error>;
type Outcome<D> = watch::Receiver<Option<Loaded<D>>>;
/// A user, and the cached value that was of no use. Loads that saw different values do not share: one of them
/// began before an invalidation, the other after it.
type FlightKey = (Arc<str>, Option<Bytes>);
type Flights<D> = Mutex<HashMap<FlightKey, Outcome<D>>>;

impl<D> Loads<D> {
    pub(super) fn new(
        loader: Arc<dyn ErasedLoadUser<D>>,
        missing_ttl: Duration,
        timeout: Duration,
    ) -> Self {
        Self {
            source: Arc::new(Source {
                loader,
                missing_ttl,
                timeout,
            }),
            flights: Arc::default(),
        }
    }
}

impl<D> Clone for Loads<D> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            flights: Arc::clone(&self.flights),
        }
    }
}

impl<D: Serialize + DeserializeOwned + Send + Sync + 'static> Loads<D> {
    /// Loads a user whose cached value was `seen`, of no use, and caches the answer unless the cached
    /// value has changed since. Joins a load that is in flight for the same.
    pub(super) async fn fill(
        &self,
        store: &Arc<dyn ErasedStore>,
        user_id: &Arc<str>,
        seen: Option<Bytes>,
        ttl: Duration,
    ) -> Loaded<D> {
        landed(self.join(store, (Arc::clone(user_id), seen), ttl)).await
    }

    /// The outcome-to-be of the flight with this key, which is started if there is none.
    fn join(&self, store: &Arc<dyn ErasedStore>, key: FlightKey, ttl: Duration) -> Outcome<D> {
        let (sender, outcome) = watch::channel(None);
        let user_id = Arc::clone(&key.0);
        let mut flight = Flight {
            flights: Arc::clone(&self.flights),
            key: None,
            outcome: outcome.clone(),
        };
        if let Some(other) = flight.take_off(key) {
            return other;
        }
        let (source, store) = (Arc::clone(&self.source), Arc::clone(store));
        // A task of its own: no caller that goes away takes the load from the others.
        tokio::spawn(async move {
            let loaded = source.fill(&*store, &user_id, ttl, &mut flight).await;
            drop(flight);
            // Nobody may be waiting any more.
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
            let loaded = self.source.load(user_id).await?;
            let put = self
                .source
                .put(store, user_id, loaded.as_deref(), ttl, &seen);
            if put.await? {
                return Ok(loaded);
            }
            // Somebody wrote while we loaded. The first time, their load may have begun before our call. The
            // second time, theirs began when a value was there that is younger than our call.
            if attempt > 1
                && let Some(newer) = decode(user_id, store.get_user(user_id).await?.as_deref())
            {
                return Ok(newer);
            }
            // Invalidated again and again: nothing old is cached, and the next check loads.
            if attempt == REPLACE_ATTEMPTS {
                return Ok(loaded);
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
        ttl: Duration,
        flight: &mut Flight<D>,
    ) -> Loaded<D> {
        let seen = claim(store, user_id).await;
        if let Ok(value) = &seen {
            // Between the caller's look and this flight another one may have landed …
            if let Some(cached) = decode(user_id, Some(value)) {
                return Ok(cached);
            }
            // … or taken off.
            if let Some(other) = flight.settle((Arc::clone(user_id), Some(value.clone()))) {
                return landed(other).await;
            }
        }
        let loaded = self.load(user_id).await?;
        // A store that cannot keep it, say for want of memory, does not make it wrong.
        if let Ok(seen) = seen {
            let put = self.put(store, user_id, loaded.as_deref(), ttl, &seen);
            match put.await {
                Err(error) if !error.is_fault() => return Err(error),
                _ => {}
            }
        }
        Ok(loaded)
    }

    async fn load(&self, user_id: &str) -> Loaded<D> {
        let (loader, user_id) = (Arc::clone(&self.loader), user_id.to_owned());
        // A task of its own, which ends with this future, so that a panic is an error like any other.
        let mut task = JoinSet::new();
        task.spawn(async move { loader.load_user(user_id).await });
        let failed =
            |source| Error::with_source(ErrorKind::LoadUser, "the user loader failed", source);
        match tokio::time::timeout(self.timeout, task.join_next()).await {
            Ok(Some(Ok(loaded))) => Ok(loaded.map_err(failed)?.map(Arc::new)),
            Ok(Some(Err(panic))) => Err(failed(panic.into())),
            Ok(None) | Err(_) => Err(Error::new(
                ErrorKind::LoadUser,
                format!("the user loader took longer than {:?}", self.timeout),
            )),
        }
    }

    /// `false` if the cached value is no longer `seen`.
    async fn put(
        &self,
        store: &dyn ErasedStore,
        user_id: &str,
        detail: Option<&D>,
        ttl: Duration,
        seen: &[u8],
    ) -> Result<bool, Error> {
        let value = slot::encode(user_id, detail)?;
        let ttl = detail.map_or(self.missing_ttl, |_| ttl);
        let mode = PutMode::IfUnchanged(Some(seen));
        store.put_user(user_id, &value, ttl, mode).await
    }
}

/// The cached value, after making sure that there is one.
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

/// Waits for the end of a flight.
async fn landed<D>(mut outcome: Outcome<D>) -> Loaded<D> {
    match outcome.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(loaded)) => loaded.clone(),
        _ => Err(Error::cut_short()),
    }
}

fn decode<D: DeserializeOwned>(user_id: &str, value: Option<&[u8]>) -> Option<Option<Arc<D>>> {
    match Slot::decode(user_id, value) {
        Slot::User(detail) => Some(Some(Arc::new(detail))),
        Slot::NoSuchUser => Some(None),
        Slot::Vacant => None,
    }
}

/// A load that others can join; off the board when it ends, however it ends.
struct Flight<D> {
    flights: Arc<Flights<D>>,
    key: Option<FlightKey>,
    outcome: Outcome<D>,
}

impl<D> Flight<D> {
    /// Puts this flight on the board under `key`, unless another one is there already.
    fn take_off(&mut self, key: FlightKey) -> Option<Outcome<D>> {
        let mut flights = lock(&self.flights);
        if let Some(other) = flights.get(&key) {
            return Some(other.clone());
        }
        flights.insert(key.clone(), self.outcome.clone());
        self.key = Some(key);
        None
    }

    /// Changes to this key, that of the value on which the load will depend; gives way to another flight
    /// that has it.
    ///
    /// From now on who saw something else does not join: it may have happened later.
    fn settle(&mut self, key: FlightKey) -> Option<Outcome<D>> {
        if self.key.as_ref() == Some(&key) {
            return None;
        }
        self.leave();
        self.take_off(key)
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

/// The board; no code that holds its lock can panic halfway.
fn lock<D>(flights: &Flights<D>) -> MutexGuard<'_, HashMap<FlightKey, Outcome<D>>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}
