//! The application's user loader.

use std::{pin::Pin, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tower::BoxError;

use super::{background::spawn_in, listener::Listener, slot};
use crate::{Error, ErrorKind};

/// Loads the details of users, for example from a database or another service.
///
/// Functions and closures that take the user id and return a future of `Result<Option<D>, E>` implement it. A closure
/// that uses a pool clones it for each call and moves the clone into the future, as the example of
/// [`load_user`](crate::TokenManagerBuilder::load_user) does. An `async move` closure with captures does not compile,
/// because its futures borrow from it. Your own types can implement the trait as well:
///
/// ```
/// use std::sync::Arc;
/// use tower_bearer_session::{LoadUser, MemoryStore, TokenManager};
/// # struct Pool;
/// # impl Pool {
/// #     async fn name(&self, id: &str) -> Result<Option<String>, std::io::Error> { Ok(Some(id.to_owned())) }
/// # }
///
/// struct Users {
///     pool: Arc<Pool>,
/// }
///
/// impl LoadUser<String> for Users {
///     async fn load_user(&self, id: String) -> Result<Option<String>, tower::BoxError> {
///         Ok(self.pool.name(&id).await?)
///     }
/// }
///
/// let users = Users { pool: Arc::new(Pool) };
/// let manager = TokenManager::builder(MemoryStore::new()).load_user(users).build()?;
/// # let _ = manager;
/// # Ok::<_, tower_bearer_session::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot load users of type `{D}`",
    label = "not a user loader",
    note = "pass an async function from the user id to `Result<Option<D>, E>`, or a `move` closure that clones what it uses and moves the clone into an `async move` block",
    note = "or implement `LoadUser` for a type that holds what it needs"
)]
pub trait LoadUser<D>: Send + Sync + 'static {
    /// Loads one user. Returns `Ok(None)` if there is no such user.
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

/// The object-safe form of [`LoadUser`].
pub(super) trait ErasedLoadUser<D>: Send + Sync {
    fn load_user(&self, user_id: String) -> Loading<'_, D>;
}

impl<D: 'static, L: LoadUser<D>> ErasedLoadUser<D> for L {
    fn load_user(&self, user_id: String) -> Loading<'_, D> {
        Box::pin(LoadUser::load_user(self, user_id))
    }
}

/// The user loader with its limits, and the listener for its failures.
pub(super) struct Loader<D> {
    pub(super) loader: Arc<dyn ErasedLoadUser<D>>,
    pub(super) timeout: Duration,
    /// One for each load that may run at the same time.
    pub(super) turns: Arc<Semaphore>,
    /// The maximum size of a cached value, in bytes.
    pub(super) max_user_size: usize,
    pub(super) listener: Listener,
}

/// A loaded user and the value to cache.
pub(super) struct UserToCache<D> {
    /// `None` if there is no such user.
    pub(super) detail: Option<Arc<D>>,
    pub(super) value: Vec<u8>,
}

impl<D: Serialize + DeserializeOwned + Send + 'static> Loader<D> {
    /// Loads one user. Reports a failure, and a detail that cannot be cached.
    pub(super) async fn load(&self, user_id: &str) -> Result<UserToCache<D>, Error> {
        let loaded = self.call(user_id).await.and_then(|detail| {
            let value = slot::encode(user_id, detail.as_ref(), self.max_user_size)?;
            let detail = detail.map(Arc::new);
            Ok(UserToCache { detail, value })
        });
        loaded.inspect_err(|error| {
            self.listener
                .failed("load_user", Some(user_id), None, error);
        })
    }

    async fn call(&self, user_id: &str) -> Result<Option<D>, Error> {
        let deadline = Instant::now() + self.timeout;
        // Half of the time is left for the load itself: a turn that comes at the last moment would be for nobody.
        let turn = timeout(self.timeout / 2, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            let message = format!("no turn to load a user within {:?}", self.timeout / 2);
            return Err(Error::new(ErrorKind::LoadUser, message));
        };
        let (loader, user_id) = (Arc::clone(&self.loader), user_id.to_owned());
        // Its own task turns a panic into an error; the `JoinSet` aborts the task when this future is dropped.
        let mut task = JoinSet::new();
        spawn_in(&mut task, async move {
            let _turn = turn;
            loader.load_user(user_id).await
        });
        let failed =
            |source| Error::with_source(ErrorKind::LoadUser, "the user loader failed", source);
        match timeout_at(deadline, task.join_next()).await {
            Ok(Some(Ok(loaded))) => loaded.map_err(failed),
            // Without the panic message, which may contain user data.
            Ok(Some(Err(error))) if error.is_panic() => {
                Err(failed("the user loader panicked".into()))
            }
            Ok(Some(Err(_))) => Err(Error::load_interrupted()),
            Ok(None) | Err(_) => Err(Error::new(
                ErrorKind::LoadUser,
                format!("the user loader took longer than {:?}", self.timeout),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::manager::slot::MAX_LOAD_TIME;

    const SECOND: Duration = Duration::from_secs(1);

    /// One that answers after a second, and never for the user `slow`.
    struct Slow {
        running: AtomicUsize,
        most: AtomicUsize,
    }

    impl LoadUser<String> for Arc<Slow> {
        async fn load_user(&self, user_id: String) -> Result<Option<String>, BoxError> {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            if user_id == "slow" {
                pending::<()>().await;
            }
            tokio::time::sleep(SECOND).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            Ok(Some(user_id))
        }
    }

    fn loader(turns: usize) -> (Arc<Slow>, Arc<Loader<String>>) {
        let slow = Arc::new(Slow {
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let loader = Loader {
            loader: Arc::new(Arc::clone(&slow)),
            timeout: MAX_LOAD_TIME,
            turns: Arc::new(Semaphore::new(turns)),
            max_user_size: 1000,
            listener: Listener::default(),
        };
        (slow, Arc::new(loader))
    }

    async fn load_all(loader: &Arc<Loader<String>>, users: usize) -> Vec<Result<(), Error>> {
        let mut loads = JoinSet::new();
        for n in 0..users {
            let loader = Arc::clone(loader);
            loads.spawn(async move { loader.load(&n.to_string()).await.map(drop) });
        }
        loads.join_all().await
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_loads_run_at_the_same_time_and_the_others_wait() {
        let (slow, loader) = loader(3);
        let begun = Instant::now();
        assert!(load_all(&loader, 10).await.iter().all(Result::is_ok));
        assert_eq!(slow.most.load(Ordering::SeqCst), 3);
        assert_eq!(begun.elapsed().as_secs(), 4);
        // One that has waited for half of the time gives up, so that there is time for those who load.
        let loads = load_all(&loader, 200).await;
        let failed = loads.iter().filter_map(|load| load.as_ref().err());
        let kinds: Vec<_> = failed.map(Error::kind).collect();
        assert!(kinds.len() > 100 && kinds.iter().all(|kind| *kind == ErrorKind::LoadUser));
        let turns = 3 * (MAX_LOAD_TIME / 2).as_secs();
        assert!(loads.len() - kinds.len() >= turns as usize, "{kinds:?}");
    }

    /// As many users are loaded as the loader can load, whatever else is asked of it.
    #[tokio::test(start_paused = true)]
    async fn more_users_than_can_be_loaded_keep_nobody_from_being_loaded() {
        let (_, loader) = loader(10);
        let mut loads = JoinSet::new();
        for n in 0..2000 {
            let loader = Arc::clone(&loader);
            loads.spawn(async move { loader.load(&n.to_string()).await.is_ok() });
            tokio::time::sleep(SECOND / 20).await;
        }
        let loaded = loads.join_all().await.into_iter().filter(|is| *is).count();
        // In 100 seconds, ten of twenty a second.
        assert!(loaded >= 900, "{loaded}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_hangs_delays_no_other_user_as_long_as_there_are_turns() {
        let (_, loader) = loader(2);
        let hanging = tokio::spawn({
            let loader = Arc::clone(&loader);
            async move { loader.load("slow").await.map(drop) }
        });
        let begun = Instant::now();
        assert!(load_all(&loader, 5).await.iter().all(Result::is_ok));
        assert_eq!(begun.elapsed().as_secs(), 5);
        // Its turn ends with its time.
        let failed = hanging.await.unwrap().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::LoadUser);
        assert_eq!(loader.turns.available_permits(), 2);
    }
}
