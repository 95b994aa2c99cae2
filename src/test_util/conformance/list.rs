//! Tests of `list`.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::helpers::{DAY, HOUR, listed, live_session, log_in, log_in_apart, session, token_id};
use crate::{SessionStore, test_util::Backend};
use bytes::Bytes;
use tokio::task::yield_now;

/// The list of an unknown user is empty, and not an error.
pub async fn an_unknown_user_has_none(backend: &impl Backend) {
    let store = backend.store().await;
    log_in(&store, "bo", &token_id(1)).await;
    assert_eq!(store.list("al").await.expect("no error"), []);
}

/// Sessions are listed in the order of their logins, whatever their ids and refreshes.
pub async fn the_oldest_comes_first(backend: &impl Backend) {
    let store = backend.store().await;
    let ids = [7, 3, 9, 1, 8, 2, 6].map(token_id);
    log_in_apart(&store, "al", &ids).await;
    store.refresh("al", &ids[0], DAY).await.expect("no error");
    store
        .refresh("al", &ids[3], 2 * HOUR)
        .await
        .expect("no error");
    assert_eq!(listed(&store, "al").await, ids);
    store.delete("al", &ids[2]).await.expect("no error");
    assert_eq!(listed(&store, "al").await, [7, 3, 1, 8, 2, 6].map(token_id));
}

/// Each entry is the record that a check of that session returns.
pub async fn a_list_tells_what_a_check_tells(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 1..=10 {
        let mut new = session(n * HOUR);
        new.max_lifetime = (n % 2 == 0).then_some(5 * HOUR);
        new.metadata = (n % 3 == 0).then(|| Bytes::from(format!("session {n}")));
        store
            .create("al", &token_id(n.into()), &new, None)
            .await
            .expect("no error");
        store
            .create("bo", &token_id(n.into()), &session(HOUR), None)
            .await
            .expect("no error");
    }
    store
        .refresh("al", &token_id(3), DAY)
        .await
        .expect("no error");
    let list = store.list("al").await.expect("no error");
    assert_eq!(list.len(), 10);
    for (id, listed) in list {
        assert_eq!(listed, live_session(&store, "al", &id).await);
    }
}

/// A list of thousands of sessions has each of them once, in order.
pub async fn thousands_are_all_there_once(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..3000 {
        log_in(&store, "al", &token_id(n)).await;
    }
    let list = store.list("al").await.expect("no error");
    assert_eq!(list.len(), 3000);
    assert!(list.is_sorted_by_key(|(_, session)| session.created_at));
    let ids: HashSet<_> = list.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, (0..3000).map(token_id).collect());
}

/// A session that is live throughout is in every list once, whatever other sessions begin and end.
pub async fn what_lives_throughout_is_listed_once(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..1500 {
        log_in(&store, "al", &token_id(n)).await;
    }
    let stays: HashSet<_> = (0..1500).map(token_id).collect();
    let done = Arc::new(AtomicBool::new(false));
    let (churned, stop) = (backend.store().await, Arc::clone(&done));
    let churn = tokio::spawn(async move {
        // The table in the store grows and shrinks, so that it is rebuilt more than once.
        while !stop.load(Ordering::SeqCst) {
            for n in 5000..7000 {
                log_in(&churned, "al", &token_id(n)).await;
                churned
                    .refresh("al", &token_id(n % 1500), DAY)
                    .await
                    .expect("no error");
            }
            for n in 5000..7000 {
                churned.delete("al", &token_id(n)).await.expect("no error");
                yield_now().await;
            }
        }
    });
    for _ in 0..15 {
        let ids = listed(&store, "al").await;
        let once: HashSet<_> = ids.iter().copied().collect();
        assert_eq!(once.len(), ids.len());
        assert!(once.is_superset(&stays));
    }
    done.store(true, Ordering::SeqCst);
    churn.await.expect("no error");
}
