//! The undo of logins whose outcome is unknown: bounded in calls, in time and in number.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use tower_bearer_session::{
    Error, ErrorKind, EventKind, MemoryStore, ReplaceOptions, TokenManager,
    store::{InterceptedStore, Operation, StoreCall, StoreInterceptor},
    test_util::Faults,
};

use crate::{eventually, stores::HOUR};

/// Logins that time out at a store that is busy do not make it busier than it can help.
#[tokio::test(start_paused = true)]
async fn an_undo_takes_at_most_two_calls_of_a_store_that_answers() {
    const LOGINS: u64 = 100;
    let faults = Faults::new();
    let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
    faults.on(Operation::Create).fail(ErrorKind::Timeout);
    for _ in 0..LOGINS {
        manager.set_token("al", HOUR).await.unwrap_err();
    }
    sleep(HOUR).await;
    let calls = faults.on(Operation::Delete).calls();
    assert!((LOGINS..=2 * LOGINS).contains(&calls), "{calls} calls");
}

/// Undos that began at the same moment are not repeated at the same moment.
#[tokio::test(start_paused = true)]
async fn undos_are_repeated_at_different_moments() {
    const LOGINS: usize = 20;
    let (faults, deletes) = (Faults::new(), Deletes::default());
    let store = InterceptedStore::new(faults.wrap(MemoryStore::new()), deletes.clone());
    let manager: TokenManager = TokenManager::new(store);
    faults.fail(ErrorKind::Unavailable);
    for _ in 0..LOGINS {
        manager.set_token("al", HOUR).await.unwrap_err();
    }
    sleep(HOUR).await;
    let moments = deletes.0.lock().unwrap().clone();
    let (first, later) = moments.split_at(LOGINS);
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 1);
    let later = &later[..LOGINS];
    assert!(later.iter().collect::<HashSet<_>>().len() > LOGINS / 4);
}

/// An outage does not pile up work without end: what is dropped is reported.
#[tokio::test(start_paused = true)]
async fn undos_in_flight_are_bounded() {
    const MOST: u64 = 1024;
    const MORE: usize = 50;
    let (faults, dropped) = (Faults::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&dropped);
    let builder = TokenManager::builder(faults.wrap(MemoryStore::new()));
    let manager: TokenManager = builder
        .on_event(move |event| {
            if let EventKind::Failed {
                operation: "delete",
                user_id: Some("al"),
                token_id: Some(_),
                ..
            } = event.kind()
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()
        .unwrap();
    faults.on(Operation::Create).fail(ErrorKind::Timeout);
    faults.on(Operation::Delete).delay(Duration::from_secs(5));
    for _ in 0..MOST as usize + MORE {
        manager.set_token("al", HOUR).await.unwrap_err();
    }
    yield_now().await;
    assert_eq!(faults.on(Operation::Delete).calls(), MOST);
    assert_eq!(dropped.load(Ordering::Relaxed), MORE);
    // Those that have ended make room.
    sleep(HOUR).await;
    let before = faults.on(Operation::Delete).calls();
    manager.set_token("al", HOUR).await.unwrap_err();
    sleep(HOUR).await;
    assert!(faults.on(Operation::Delete).calls() > before);
    assert_eq!(dropped.load(Ordering::Relaxed), MORE);
}

/// Replacements share the numbers of logins: one that cannot be undone is reported.
#[tokio::test(start_paused = true)]
async fn replacements_share_the_bound_on_undos() {
    const MOST: usize = 1024;
    let (faults, dropped) = (Faults::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&dropped);
    let builder = TokenManager::builder(faults.wrap(MemoryStore::new()));
    let manager: TokenManager = builder
        .on_event(move |event| {
            if let EventKind::Failed {
                operation: "update",
                error,
                ..
            } = event.kind()
                && error.to_string().contains("not undone")
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()
        .unwrap();
    let token = manager.set_token("al", HOUR).await.unwrap();
    faults.on(Operation::Create).fail(ErrorKind::Timeout);
    faults.on(Operation::Delete).delay(Duration::from_secs(5));
    for _ in 0..MOST {
        manager.set_token("al", HOUR).await.unwrap_err();
    }
    faults.on(Operation::Update).fail(ErrorKind::Timeout);
    let options = ReplaceOptions::new();
    let replaced = manager.replace_token(token.expose_secret(), options).await;
    replaced.unwrap_err();
    yield_now().await;
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    // The only call is the replacement itself.
    assert_eq!(faults.on(Operation::Update).calls(), 1);
}

/// A store that never answers breaks its contract; it keeps neither a call whose caller has gone away nor an undo.
#[tokio::test(start_paused = true)]
async fn work_without_a_caller_is_given_up() {
    let (hung, calls) = (Hung::default(), Faults::new());
    let store = InterceptedStore::new(calls.wrap(MemoryStore::new()), hung.clone());
    let manager: TokenManager = TokenManager::new(store);
    let token = manager.set_token("al", HOUR).await.unwrap();
    let text = token.expose_secret();
    hung.hang(&[
        Operation::Create,
        Operation::Update,
        Operation::Delete,
        Operation::DeleteAll,
    ]);
    let gone = [
        tokio::spawn({
            let manager = manager.clone();
            async move { manager.set_token("al", HOUR).await.is_ok() }
        }),
        tokio::spawn({
            let (manager, text) = (manager.clone(), text.to_owned());
            async move { manager.refresh_token(&text, HOUR).await.is_ok() }
        }),
        tokio::spawn({
            let (manager, text) = (manager.clone(), text.to_owned());
            async move { manager.delete_token(&text).await.is_ok() }
        }),
    ];
    let waiting = tokio::spawn({
        let manager = manager.clone();
        async move { manager.delete_user_tokens("al").await.is_ok() }
    });
    sleep(HOUR).await;
    // Callers that wait are their own masters.
    assert_eq!(hung.in_flight(), 4);
    for caller in gone {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(hung.in_flight(), 4);
    sleep(HOUR).await;
    assert_eq!(hung.in_flight(), 1);
    assert!(!waiting.is_finished());
    waiting.abort();
    // An undo is such work, too.
    hung.hang(&[Operation::Delete]);
    calls.on(Operation::Create).fail_next(1, ErrorKind::Timeout);
    manager.set_token("al", HOUR).await.unwrap_err();
    sleep(2 * HOUR).await;
    assert_eq!(hung.in_flight(), 0);
}

/// When sessions were deleted.
#[derive(Clone, Default)]
struct Deletes(Arc<Mutex<Vec<Instant>>>);

impl StoreInterceptor for Deletes {
    async fn intercept<T: Send>(
        &self,
        call: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        if call.operation == Operation::Delete {
            self.0.lock().unwrap().push(Instant::now());
        }
        answer.await
    }
}

/// Operations that never end.
#[derive(Clone, Default)]
struct Hung {
    operations: Arc<Mutex<&'static [Operation]>>,
    /// One more reference for each call.
    calls: Arc<()>,
    handles: Arc<()>,
}

impl Hung {
    fn hang(&self, operations: &'static [Operation]) {
        *self.operations.lock().unwrap() = operations;
    }

    fn in_flight(&self) -> usize {
        Arc::strong_count(&self.calls) - Arc::strong_count(&self.handles)
    }
}

impl StoreInterceptor for Hung {
    async fn intercept<T: Send>(
        &self,
        call: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let hangs = self.operations.lock().unwrap().contains(&call.operation);
        if hangs {
            let _call = Arc::clone(&self.calls);
            std::future::pending::<()>().await;
        }
        answer.await
    }
}

/// A hook that panics when it hears of a login leaves no session whose token nobody has.
#[tokio::test]
async fn a_login_whose_hook_panics_is_undone() {
    let store = MemoryStore::new();
    let manager: TokenManager = TokenManager::builder(store.clone())
        .on_event(|event| {
            assert!(
                !matches!(event.kind(), EventKind::LoggedIn { .. }),
                "as it was told"
            );
        })
        .build()
        .unwrap();
    let login = {
        let manager = manager.clone();
        tokio::spawn(async move { manager.set_token("al", HOUR).await })
    };
    assert!(login.await.unwrap_err().is_panic());
    eventually("the session has ended", async || {
        manager.list_user_tokens("al").await.unwrap().is_empty()
    })
    .await;
}

/// A hook that panics at failures does not keep an undo from its further attempts.
#[tokio::test(start_paused = true)]
async fn an_undo_outlives_a_hook_that_panics() {
    let (faults, store) = (Faults::new(), MemoryStore::new());
    let manager: TokenManager = TokenManager::builder(faults.wrap(store.clone()))
        .on_event(|event| {
            let failed = matches!(
                event.kind(),
                EventKind::Failed {
                    operation: "delete",
                    ..
                }
            );
            assert!(!failed, "as it was told");
        })
        .build()
        .unwrap();
    faults
        .on(Operation::Create)
        .lose_next_replies(1, ErrorKind::Timeout);
    faults
        .on(Operation::Delete)
        .fail_next(2, ErrorKind::Unavailable);
    manager.set_token("al", HOUR).await.unwrap_err();
    assert_eq!(manager.list_user_tokens("al").await.unwrap().len(), 1);
    sleep(HOUR / 2).await;
    assert!(manager.list_user_tokens("al").await.unwrap().is_empty());
}
