//! Logins that nobody claims, and calls that hang after their caller has gone: each session ends, and each event is
//! reported exactly once.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use http::{Request, Response, header::AUTHORIZATION};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    ErrorKind, Event, EventKind, MemoryStore, OnFull, SessionLayer, SessionStore, TokenManager,
    store::Operation, test_util::Faults,
};

use crate::stores::{DAY, HOUR};

/// The maximum number of undos in flight.
const MOST: usize = 1024;

/// The store starts the session and then hangs: the session ends although the call is abandoned.
#[tokio::test(start_paused = true)]
async fn an_abandoned_login_is_undone() {
    let (store, faults) = (MemoryStore::new(), Faults::new());
    let (manager, _) = manager(faults.wrap(store.clone()));
    faults.on(Operation::Create).delay_replies(DAY);
    timeout(Duration::from_secs(1), manager.set_token("al", HOUR))
        .await
        .unwrap_err();
    assert_eq!(sessions(&store).await, 1);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(sessions(&store).await, 0);
}

/// A call that is abandoned is a failed one, for which no caller gets the error.
#[tokio::test(start_paused = true)]
async fn an_abandoned_call_is_reported_once() {
    for operation in [
        Operation::Create,
        Operation::Update,
        Operation::Delete,
        Operation::DeleteAll,
    ] {
        let faults = Faults::new();
        let (manager, events) = manager(faults.wrap(MemoryStore::new()));
        let token = manager.set_token("al", HOUR).await.unwrap();
        events.take();
        faults.on(operation).delay(DAY);
        let call = async {
            match operation {
                Operation::Create => manager.set_token("al", HOUR).await.map(drop),
                Operation::Update => manager
                    .refresh_token(token.expose_secret(), HOUR)
                    .await
                    .map(drop),
                Operation::Delete => manager.delete_token(token.expose_secret()).await.map(drop),
                _ => manager.delete_user_tokens("al").await.map(drop),
            }
        };
        timeout(Duration::from_secs(1), call).await.unwrap_err();
        sleep(HOUR).await;
        let heard = events.take();
        let [failed] = &heard[..] else {
            panic!("{operation}: {heard:?}");
        };
        if operation == Operation::Create {
            assert!(failed.starts_with("Timeout: create of "));
            assert!(!failed.ends_with(&token.id().to_string()) && !failed.ends_with("none"));
        } else {
            let id = match operation {
                Operation::DeleteAll => "none",
                _ => &token.id().to_string(),
            };
            assert_eq!(*failed, format!("Timeout: {operation} of {id}"));
        }
    }
}

/// An undo that the store does not answer is reported, too.
#[tokio::test(start_paused = true)]
async fn an_undo_without_an_answer_is_reported() {
    let faults = Faults::new();
    let (manager, events) = manager(faults.wrap(MemoryStore::new()));
    faults
        .on(Operation::Create)
        .delay_replies(Duration::from_secs(2));
    faults.on(Operation::Delete).delay(DAY);
    timeout(Duration::from_secs(1), manager.set_token("al", HOUR))
        .await
        .unwrap_err();
    sleep(HOUR).await;
    let heard = events.take();
    assert_eq!(
        heard.len() as u64,
        faults.on(Operation::Delete).calls(),
        "{heard:?}"
    );
    assert!(
        heard
            .iter()
            .all(|event| event.starts_with("Timeout: delete of "))
    );
}

/// Failed logins of an outage take no place from a login that is known to have started a session.
#[tokio::test(start_paused = true)]
async fn an_outage_leaves_room_for_the_undo_of_a_login_that_succeeded() {
    let (store, faults) = (MemoryStore::new(), Faults::new());
    let (manager, _) = manager(faults.wrap(store.clone()));
    faults
        .on(Operation::Create)
        .fail_next(MOST as u64, ErrorKind::Timeout);
    faults.on(Operation::Delete).delay(Duration::from_secs(5));
    for _ in 0..MOST {
        manager.set_token("bo", HOUR).await.unwrap_err();
    }
    faults
        .on(Operation::Create)
        .delay_replies(Duration::from_millis(20));
    timeout(Duration::from_millis(10), manager.set_token("al", HOUR))
        .await
        .unwrap_err();
    assert_eq!(sessions(&store).await, 1);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(sessions(&store).await, 0);
}

/// A hook that panics on the login itself has heard of each eviction already.
#[tokio::test]
async fn evictions_are_reported_once_if_the_hook_panics_on_the_login() {
    let (heard, panics) =
        evict_three(|event| matches!(event.kind(), EventKind::LoggedIn { .. })).await;
    assert_eq!((heard, panics), (3, 1));
}

/// A hook that panics on an eviction still hears of each of them.
#[tokio::test]
async fn evictions_are_reported_once_if_the_hook_panics_on_one() {
    let (heard, panics) =
        evict_three(|event| matches!(event.kind(), EventKind::Evicted { .. })).await;
    assert_eq!((heard, panics), (3, 3));
}

/// A login that evicts three sessions, with a hook that panics on some events; returns the number of evictions that it
/// heard, each another one, and of its panics.
async fn evict_three(panics_on: fn(&Event<'_>) -> bool) -> (usize, usize) {
    let store = MemoryStore::new();
    let before: TokenManager = TokenManager::new(store.clone());
    for _ in 0..3 {
        before.set_token("al", HOUR).await.unwrap();
    }
    let evicted = Arc::new(Mutex::new(Vec::new()));
    let panics = Arc::new(Mutex::new(0));
    let (seen, count) = (Arc::clone(&evicted), Arc::clone(&panics));
    let builder = TokenManager::builder(store.clone()).session_limit(1, OnFull::EvictOldest);
    let manager: TokenManager = builder
        .on_event(move |event| {
            if let EventKind::Evicted { token_id, .. } = event.kind() {
                seen.lock().unwrap().push(*token_id);
            }
            if panics_on(event) {
                *count.lock().unwrap() += 1;
                panic!("the hook panics, as it was told");
            }
        })
        .build()
        .unwrap();
    let login = tokio::spawn({
        let manager = manager.clone();
        async move { manager.set_token("al", HOUR).await }
    });
    assert!(login.await.unwrap_err().is_panic());
    crate::eventually("the session has ended", async || {
        sessions(&store).await == 0
    })
    .await;
    let mut evicted = evicted.lock().unwrap().clone();
    let heard = evicted.len();
    evicted.sort();
    evicted.dedup();
    assert_eq!(evicted.len(), heard, "an eviction was reported twice");
    (heard, *panics.lock().unwrap())
}

/// A memory store needs no timer, and neither do the undo of its logins and the completion of its calls.
#[test]
fn without_a_timer_a_login_in_a_memory_store_is_undone() {
    let store = MemoryStore::new();
    let (manager, events) = manager(store.clone());
    without_a_timer().block_on(async {
        let mut login = Box::pin(manager.set_token("al", HOUR));
        let pending = login.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(pending.is_pending());
        // The login has not run yet.
        drop(login);
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(sessions(&store).await, 0);
        let token = manager.set_token("al", HOUR).await.unwrap();
        let mut logout = Box::pin(manager.delete_token(token.expose_secret()));
        let pending = logout
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(pending.is_pending());
        drop(logout);
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(sessions(&store).await, 0);
        let expected = [format!("in {}", token.id()), format!("out {}", token.id())];
        assert_eq!(events.take(), expected);
    });
}

/// The same for the renewal of a session in use.
#[test]
fn without_a_timer_a_session_in_a_memory_store_is_renewed() {
    let (manager, events) = manager(MemoryStore::new());
    without_a_timer().block_on(async {
        let token = manager.set_token("al", HOUR).await.unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let layer =
            SessionLayer::new(manager.clone()).refresh_below(HOUR - Duration::from_millis(1));
        let service = layer.layer(service_fn(async |_: Request<String>| {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
        let request = Request::builder()
            .header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
            .body(String::new())
            .unwrap();
        service.oneshot(request).await.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        let expected = [
            format!("in {}", token.id()),
            format!("refreshed {}", token.id()),
        ];
        assert_eq!(events.take(), expected);
    });
}

fn without_a_timer() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// A manager that rejects no login, and its events.
fn manager(store: impl SessionStore) -> (TokenManager, Events) {
    let events = Events::default();
    let heard = events.clone();
    let builder = TokenManager::builder(store).on_event(move |event| heard.hear(event));
    (builder.build().unwrap(), events)
}

/// What a listener hears.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    fn hear(&self, event: &Event<'_>) {
        let heard = match event.kind() {
            EventKind::LoggedIn { token_id, .. } => format!("in {token_id}"),
            EventKind::LoggedOut { token_id, .. } => format!("out {token_id}"),
            EventKind::Refreshed { token_id, .. } => format!("refreshed {token_id}"),
            EventKind::Failed {
                operation,
                token_id,
                error,
                ..
            } => {
                let id = token_id.map_or("none".to_owned(), ToString::to_string);
                format!("{:?}: {operation} of {id}", error.kind())
            }
            event => panic!("{event:?}"),
        };
        self.0.lock().unwrap().push(heard);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// How many sessions `al` has.
async fn sessions(store: &impl SessionStore) -> usize {
    store.list("al").await.unwrap().len()
}
