use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    Error, ErrorKind, SessionStore,
    store::{AroundStore, Operation, WrappedStore},
};

/// A store that fails or is slow when its [`Faults`] say so.
pub type FaultyStore<S> = WrappedStore<S, Faults>;

/// The faults of a store, to be changed while the store is in use. Cloning gives another handle on the same ones.
///
/// ```
/// use tower_bearer_session::{ErrorKind, MemoryStore, TokenManager, test_util::Faults};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer_session::Error> {
/// let faults = Faults::new();
/// let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
/// let token = manager.set_token("alice", None).await?;
///
/// faults.on("check").fail_next(1, ErrorKind::Unavailable);
/// assert!(manager.check_token(token.expose_secret()).await.is_err());
/// assert!(manager.check_token(token.expose_secret()).await?.is_some());
/// assert_eq!(faults.on("check").calls(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    /// `None`: all operations.
    operation: Option<&'static str>,
}

#[derive(Debug, Default)]
struct State {
    /// By operation; `None`: for those that have none of their own.
    failures: BTreeMap<Option<&'static str>, Failure>,
    delays: BTreeMap<Option<&'static str>, Duration>,
    calls: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Failure {
    kind: ErrorKind,
    /// `None`: for ever.
    calls: Option<u64>,
}

const OPERATIONS: [&str; 9] = [
    "create",
    "check",
    "update",
    "delete",
    "delete_all",
    "list",
    "get_user",
    "put_user",
    "ping",
];

impl Faults {
    /// No faults, for now.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that has these faults.
    pub fn wrap<S: SessionStore>(&self, store: S) -> FaultyStore<S> {
        WrappedStore::new(store, self.clone())
    }

    /// A handle on the faults of one method of [`SessionStore`] only; they come before those of all methods.
    ///
    /// # Panics
    ///
    /// If there is no method of that name.
    #[must_use]
    pub fn on(&self, operation: &str) -> Self {
        let known = OPERATIONS.into_iter().find(|known| *known == operation);
        let Some(operation) = known else {
            panic!("a store has no method {operation:?}, only {OPERATIONS:?}");
        };
        Self {
            state: Arc::clone(&self.state),
            operation: Some(operation),
        }
    }

    /// From now on, calls fail with an error of this kind. They do not reach the store.
    pub fn fail(&self, kind: ErrorKind) {
        self.set_failure(kind, None);
    }

    /// The next calls, so many, fail with an error of this kind. They do not reach the store.
    pub fn fail_next(&self, calls: u64, kind: ErrorKind) {
        self.set_failure(kind, Some(calls));
    }

    /// From now on, calls take so much longer, those that fail included. The time is tokio's.
    pub fn delay(&self, latency: Duration) {
        self.lock().delays.insert(self.operation, latency);
    }

    /// Ends failures and delays; those of all methods, if the handle is not for [one](Self::on).
    pub fn heal(&self) {
        let mut state = self.lock();
        let others = |of: &Option<_>| self.operation.is_some() && *of != self.operation;
        state.failures.retain(|of, _| others(of));
        state.delays.retain(|of, _| others(of));
    }

    /// How many calls there were, those that failed included.
    pub fn calls(&self) -> u64 {
        let state = self.lock();
        match self.operation {
            Some(operation) => state.calls.get(operation).copied().unwrap_or(0),
            None => state.calls.values().sum(),
        }
    }

    fn set_failure(&self, kind: ErrorKind, calls: Option<u64>) {
        let failure = Failure { kind, calls };
        self.lock().failures.insert(self.operation, failure);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call, and tells what is to become of it.
    fn begin(&mut self, operation: &'static str) -> (Duration, Option<ErrorKind>) {
        *self.calls.entry(operation).or_default() += 1;
        let scopes = [Some(operation), None];
        let delay = scopes.iter().find_map(|scope| self.delays.get(scope));
        let delay = delay.copied().unwrap_or_default();
        let fails = scopes.iter().find_map(|scope| {
            let failure = self.failures.get_mut(scope)?;
            if let Some(calls) = &mut failure.calls {
                *calls = calls.checked_sub(1)?;
            }
            Some(failure.kind)
        });
        (delay, fails)
    }
}

impl AroundStore for Faults {
    async fn around<T: Send>(
        &self,
        operation: Operation<'_>,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let (delay, fails) = self.lock().begin(operation.name);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match fails {
            Some(kind) => Err(Error::new(kind, "a fault that a test asked for")),
            None => call.await,
        }
    }
}
