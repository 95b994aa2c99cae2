//! Calls that fail or are dropped half-way.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use tower_bearer_session::{
    ErrorKind, Event, EventKind, MemoryStore, TokenManager, store::Operation, test_util::Faults,
};

use crate::stores::listed_users;

const USERS: usize = 100;

/// A manager with the sessions of many users.
async fn scene() -> (Faults, MemoryStore, TokenManager) {
    let (faults, store) = (Faults::new(), MemoryStore::new());
    let manager = TokenManager::new(faults.wrap(store.clone()));
    for n in 0..USERS {
        manager.set_token(&format!("user{n}"), None).await.unwrap();
    }
    (faults, store, manager)
}

/// A fault stops the call, is returned, and leaves some users logged in. Repeating the call logs them out.
#[tokio::test(start_paused = true)]
async fn a_fault_stops_the_call_and_repeating_it_ends_the_rest() {
    let (faults, store, manager) = scene().await;
    let logouts = faults.on(Operation::DeleteAll);
    logouts.fail_next(1, ErrorKind::Timeout);
    let error = manager.delete_all_tokens().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(logouts.calls() < USERS as u64 / 2, "{}", logouts.calls());
    let left = listed_users(&store).await.len() as u64;
    assert!(left > USERS as u64 / 2);
    assert_eq!(manager.delete_all_tokens().await.unwrap(), left);
    assert!(listed_users(&store).await.is_empty());
}

/// A listing that fails is an event without a user.
#[tokio::test]
async fn a_failed_listing_is_reported() {
    let faults = Faults::new();
    let events: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&events);
    let manager: TokenManager = TokenManager::builder(faults.wrap(MemoryStore::new()))
        .on_event(move |event: &Event<'_>| {
            if let EventKind::Failed {
                operation, user_id, ..
            } = event.kind()
            {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.push(format!("{operation} {user_id:?}"));
            }
        })
        .build()
        .unwrap();
    faults
        .on(Operation::ListUsers)
        .fail_next(2, ErrorKind::Unavailable);
    let listed = manager.list_users(None).await;
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unavailable);
    let ended = manager.delete_all_tokens().await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(*events.lock().unwrap(), ["list_users None"; 2]);
}

/// Logouts run a few at a time. A dropped call begins no others, and completes those that it has begun.
#[tokio::test(start_paused = true)]
async fn a_dropped_call_completes_the_logouts_in_flight_and_begins_no_others() {
    let (faults, store, manager) = scene().await;
    let logouts = faults.on(Operation::DeleteAll);
    logouts.delay(Duration::from_secs(1));
    let dropped = timeout(Duration::from_millis(2500), manager.delete_all_tokens()).await;
    dropped.unwrap_err();
    let begun = logouts.calls();
    assert!((6..=48).contains(&begun), "{begun}");
    assert_eq!(begun % 3, 0, "as many in each second");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(logouts.calls(), begun);
    let left: BTreeSet<_> = listed_users(&store).await;
    assert_eq!(left.len() as u64, USERS as u64 - begun);
}
