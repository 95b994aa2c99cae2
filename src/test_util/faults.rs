use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    Error, ErrorKind, SessionStore,
    store::{InterceptedStore, Operation, StoreCall, StoreInterceptor},
};

/// A store that fails or responds slowly as its [`Faults`] demand.
pub type FaultyStore<S> = InterceptedStore<S, Faults>;

/// The faults of a store, which can be changed while the store is in use. Clones share the same faults.
///
/// ```
/// use tower_bearer_session::{
///     ErrorKind, MemoryStore, TokenManager, store::Operation, test_util::Faults,
/// };
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer_session::Error> {
/// let faults = Faults::new();
/// let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
/// let token = manager.set_token("alice", None).await?;
///
/// faults.on(Operation::Check).fail_next(1, ErrorKind::Unavailable);
/// assert!(manager.check_token(token.expose_secret()).await.is_err());
/// assert!(manager.check_token(token.expose_secret()).await?.is_some());
/// assert_eq!(faults.on(Operation::Check).calls(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    /// `None`: all operations.
    operation: Option<Operation>,
}

#[derive(Debug, Default)]
struct State {
    /// By operation; `None` is for operations without an entry of their own.
    failures: BTreeMap<Option<Operation>, Failure>,
    delays: BTreeMap<Option<Operation>, Duration>,
    reply_delays: BTreeMap<Option<Operation>, Duration>,
    calls: BTreeMap<Operation, u64>,
}

#[derive(Debug)]
struct Failure {
    kind: ErrorKind,
    /// The remaining calls; `None` for an unlimited number.
    calls: Option<u64>,
    /// Whether the store still performs the operation.
    done: bool,
}

/// The delays and the fault of one call.
struct Plan {
    delay: Duration,
    /// The kind of the error, and whether the store still performs the operation.
    fault: Option<(ErrorKind, bool)>,
    reply_delay: Duration,
}

impl Faults {
    /// Creates a handle without any faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wraps a store, which then has these faults.
    pub fn wrap<S: SessionStore>(&self, store: S) -> FaultyStore<S> {
        InterceptedStore::new(store, self.clone())
    }

    /// Returns a handle on the faults of one method of [`SessionStore`], which take precedence over those of all
    /// methods.
    #[must_use]
    pub fn on(&self, operation: Operation) -> Self {
        Self {
            state: Arc::clone(&self.state),
            operation: Some(operation),
        }
    }

    /// Makes all calls from now on fail with an error of this kind, without reaching the store.
    pub fn fail(&self, kind: ErrorKind) {
        self.set_failure(kind, None, false);
    }

    /// Makes the next `calls` calls fail with an error of this kind, without reaching the store.
    pub fn fail_next(&self, calls: u64, kind: ErrorKind) {
        self.set_failure(kind, Some(calls), false);
    }

    /// Loses the replies to the next `calls` calls: the store performs them, and the caller gets an error of this kind.
    pub fn lose_next_replies(&self, calls: u64, kind: ErrorKind) {
        self.set_failure(kind, Some(calls), true);
    }

    /// Delays all calls from now on, including those that fail. The delay follows tokio's clock.
    pub fn delay(&self, latency: Duration) {
        self.lock().delays.insert(self.operation, latency);
    }

    /// Delays all replies from now on, while the store performs the calls at once. The delay follows tokio's clock.
    pub fn delay_replies(&self, latency: Duration) {
        let mut state = self.lock();
        state.reply_delays.insert(self.operation, latency);
    }

    /// Ends failures and delays: those of all methods, unless the handle is for [one](Self::on).
    pub fn heal(&self) {
        let mut state = self.lock();
        let others = |of: &Option<_>| self.operation.is_some() && *of != self.operation;
        state.failures.retain(|of, _| others(of));
        state.delays.retain(|of, _| others(of));
        state.reply_delays.retain(|of, _| others(of));
    }

    /// Returns the number of calls so far, including those that failed.
    pub fn calls(&self) -> u64 {
        let state = self.lock();
        match self.operation {
            Some(operation) => state.calls.get(&operation).copied().unwrap_or(0),
            None => state.calls.values().sum(),
        }
    }

    fn set_failure(&self, kind: ErrorKind, calls: Option<u64>, done: bool) {
        let failure = Failure { kind, calls, done };
        self.lock().failures.insert(self.operation, failure);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call, and determines its delays and fault.
    fn begin(&mut self, operation: Operation) -> Plan {
        *self.calls.entry(operation).or_default() += 1;
        let scopes = [Some(operation), None];
        let latency = |of: &BTreeMap<_, Duration>| {
            let delay = scopes.iter().find_map(|scope| of.get(scope));
            delay.copied().unwrap_or_default()
        };
        let (delay, reply_delay) = (latency(&self.delays), latency(&self.reply_delays));
        let fault = scopes.iter().find_map(|scope| {
            let failure = self.failures.get_mut(scope)?;
            if let Some(calls) = &mut failure.calls {
                *calls = calls.checked_sub(1)?;
            }
            Some((failure.kind, failure.done))
        });
        Plan {
            delay,
            fault,
            reply_delay,
        }
    }
}

impl StoreInterceptor for Faults {
    async fn intercept<T: Send>(
        &self,
        call: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let plan = self.lock().begin(call.operation);
        if !plan.delay.is_zero() {
            tokio::time::sleep(plan.delay).await;
        }
        let fault = |kind| Err(Error::new(kind, "a fault injected by a test"));
        let outcome = match plan.fault {
            Some((kind, false)) => fault(kind),
            Some((kind, true)) => answer.await.and_then(|_| fault(kind)),
            None => answer.await,
        };
        if !plan.reply_delay.is_zero() {
            tokio::time::sleep(plan.reply_delay).await;
        }
        outcome
    }
}
