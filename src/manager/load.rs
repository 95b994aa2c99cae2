use std::{
    collections::{HashMap, hash_map::Entry},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, task::JoinSet};
use tower::BoxError;

use super::slot::{self, NO_SUCH_USER, Slot};
use crate::{
    Error, ErrorKind,
    store::{ErasedStore, PutMode},
};

/// How often [`Loads::replace`] starts over because somebody else wrote while it loaded.
const REPLACE_ATTEMPTS: usize = 4;

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
/// A user, and the cached value that was of no use. Loads that saw different values do not share: one of them
/// began before an invalidation, the other after it.
type FlightKey = (Arc<str>, Option<Bytes>);
type Flights<D> = Mutex<HashMap<FlightKey, watch::Receiver<Option<Loaded<D>>>>>;

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

impl<D: Serialize + DeserializeOwned + Send + Sync + 'static> Loads<D> {
    /// Loads a user whose cached value was `seen`, of no use, and caches the answer unless the cached
    /// value has changed since. Joins a load that is in flight for the same.
    pub(super) async fn fill(
        &self,
        store: &Arc<dyn ErasedStore>,
        user_id: &str,
        seen: Option<Bytes>,
        ttl: Duration,
    ) -> Loaded<D> {
        let mut outcome = self.join(store, (user_id.into(), seen), ttl);
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(loaded)) => loaded.clone(),
            _ => Err(Error::new(
                ErrorKind::LoadUser,
                "the runtime of the user loader is shutting down",
            )),
        }
    }

    /// The outcome-to-be of the flight with this key, which is started if there is none.
    fn join(
        &self,
        store: &Arc<dyn ErasedStore>,
        key: FlightKey,
        ttl: Duration,
    ) -> watch::Receiver<Option<Loaded<D>>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let vacant = match flights.entry(key.clone()) {
            Entry::Occupied(flight) => return flight.get().clone(),
            Entry::Vacant(vacant) => vacant,
        };
        let (sender, receiver) = watch::channel(None);
        vacant.insert(receiver.clone());
        let (source, store) = (Arc::clone(&self.source), Arc::clone(store));
        let landing = Landing {
            flights: Arc::clone(&self.flights),
            key,
        };
        // A task of its own: no caller that goes away takes the load from the others.
        tokio::spawn(async move {
            let (user_id, seen) = &landing.key;
            let loaded = source.fill(&*store, user_id, seen.clone(), ttl).await;
            // Nobody may be waiting any more.
            drop(landing);
            sender.send_replace(Some(loaded));
        });
        receiver
    }

    /// Loads a user and replaces the cached value, unless a newer one came meanwhile: then starts over.
    pub(super) async fn replace(
        &self,
        store: &dyn ErasedStore,
        user_id: &str,
        ttl: Duration,
    ) -> Loaded<D> {
        for _ in 1..REPLACE_ATTEMPTS {
            let seen = store.get_user(user_id).await?;
            let loaded = self.source.load(user_id).await?;
            if self
                .source
                .put(store, user_id, loaded.as_deref(), ttl, seen.as_deref())
                .await?
            {
                return Ok(loaded);
            }
        }
        // Others write all the time. Nothing that they loaded before this moment may stay cached.
        let (value, keep) = slot::invalidated()?;
        store
            .put_user(user_id, &value, keep, PutMode::Replace)
            .await?;
        let loaded = self.source.load(user_id).await?;
        self.source
            .put(store, user_id, loaded.as_deref(), ttl, Some(&value))
            .await?;
        Ok(loaded)
    }
}

impl<D: Serialize + DeserializeOwned + Send + 'static> Source<D> {
    async fn fill(
        &self,
        store: &dyn ErasedStore,
        user_id: &str,
        seen: Option<Bytes>,
        ttl: Duration,
    ) -> Loaded<D> {
        // Between the caller's look and this flight another one may have landed.
        let now = store.get_user(user_id).await?;
        if now != seen {
            match Slot::decode(user_id, now.as_deref()) {
                Slot::User(detail) => return Ok(Some(Arc::new(detail))),
                Slot::NoSuchUser => return Ok(None),
                Slot::Vacant => {}
            }
        }
        let loaded = self.load(user_id).await?;
        self.put(store, user_id, loaded.as_deref(), ttl, now.as_deref())
            .await?;
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
        seen: Option<&[u8]>,
    ) -> Result<bool, Error> {
        let mode = PutMode::IfUnchanged(seen);
        match detail {
            Some(detail) => {
                let value = slot::encode(user_id, detail)?;
                store.put_user(user_id, &value, ttl, mode).await
            }
            None => {
                store
                    .put_user(user_id, NO_SUCH_USER, self.missing_ttl, mode)
                    .await
            }
        }
    }
}

/// Takes a flight off the board when it ends, however it ends.
struct Landing<D> {
    flights: Arc<Flights<D>>,
    key: FlightKey,
}

impl<D> Drop for Landing<D> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}
