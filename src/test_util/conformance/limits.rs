//! Tests of `create` with a session limit, one call at a time; `concurrency` tests concurrent calls.

use super::helpers::{
    HOUR, is_live, limit, listed, live, live_session, log_in, log_in_apart, session, tick, token_id,
};
use crate::{
    ErrorKind, OnFull, SessionStore, TokenId,
    store::{Created, PutMode, SessionLimit},
    test_util::Backend,
};
use bytes::Bytes;

/// How many of the sessions that a login evicts must be reported.
const MIN_REPORTED: usize = 512;
const EVICTING: [OnFull; 2] = [OnFull::EvictOldest, OnFull::EvictLeastRecentlyRefreshed];

/// Up to `max` sessions, no login evicts or is refused.
pub async fn below_the_limit_nobody_goes(backend: &impl Backend) {
    let store = backend.store().await;
    for (user_id, on_full) in [
        ("oldest", OnFull::EvictOldest),
        ("refreshed", OnFull::EvictLeastRecentlyRefreshed),
        ("reject", OnFull::Reject),
    ] {
        for n in 1..=5 {
            let created = try_log_in(&store, user_id, n, limit(5, on_full)).await;
            assert!(created.expect("no error").evicted.is_empty());
        }
        assert_eq!(listed(&store, user_id).await.len(), 5);
    }
}

/// With `EvictOldest`, each login at the limit evicts the oldest session.
pub async fn the_oldest_goes_first(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 1..=10 {
        let created = try_log_in(&store, "al", n, limit(3, OnFull::EvictOldest))
            .await
            .expect("no error");
        let evicted: Vec<_> = (n.saturating_sub(3).max(1)..n.saturating_sub(2))
            .map(token_id)
            .collect();
        assert_eq!(ids(&created), evicted);
        let left: Vec<_> = (n.saturating_sub(2).max(1)..=n).map(token_id).collect();
        assert_eq!(listed(&store, "al").await, left);
        for id in evicted {
            assert!(!is_live(&store, "al", &id).await);
        }
        tick().await;
    }
}

/// `EvictLeastRecentlyRefreshed` evicts the session with the oldest refresh; a login counts as a refresh.
pub async fn the_least_recently_refreshed_goes_first(backend: &impl Backend) {
    let store = backend.store().await;
    log_in_apart(&store, "al", &[1, 2, 3].map(token_id)).await;
    for id in [1, 2].map(token_id) {
        assert!(store.refresh("al", &id, HOUR).await.expect("no error"));
        tick().await;
    }
    // The order of the last refreshes: 3, 1, 2.
    for (n, goes) in [(4, 3), (5, 1), (6, 2), (7, 4)] {
        let max = limit(3, OnFull::EvictLeastRecentlyRefreshed);
        let created = try_log_in(&store, "al", n, max).await.expect("no error");
        assert_eq!(ids(&created), [token_id(goes)]);
        tick().await;
    }
}

/// `EvictOldest` ignores refreshes.
pub async fn a_refresh_does_not_make_a_session_younger(backend: &impl Backend) {
    let store = backend.store().await;
    log_in_apart(&store, "al", &[1, 2, 3].map(token_id)).await;
    assert!(
        store
            .refresh("al", &token_id(1), 9 * HOUR)
            .await
            .expect("no error")
    );
    let created = try_log_in(&store, "al", 4, limit(3, OnFull::EvictOldest))
        .await
        .expect("no error");
    assert_eq!(ids(&created), [token_id(1)]);
}

/// A limit below the number of live sessions evicts the excess, and reports it in the order of eviction.
pub async fn a_lower_limit_evicts_several_first_to_go_first(backend: &impl Backend) {
    let store = backend.store().await;
    for (user_id, on_full) in ["oldest", "refreshed"].into_iter().zip(EVICTING) {
        log_in_apart(&store, user_id, &[6, 1, 5, 2, 4, 3].map(token_id)).await;
        let created = try_log_in(&store, user_id, 7, limit(2, on_full))
            .await
            .expect("no error");
        assert_eq!(ids(&created), [6, 1, 5, 2, 4].map(token_id));
        assert_eq!(listed(&store, user_id).await, [3, 7].map(token_id));
    }
}

/// The record of an evicted session is its latest one, with its last refresh and metadata.
pub async fn evicted_sessions_are_reported_as_they_were(backend: &impl Backend) {
    let store = backend.store().await;
    for (user_id, on_full) in ["oldest", "refreshed"].into_iter().zip(EVICTING) {
        let mut new = session(HOUR);
        new.max_lifetime = Some(9 * HOUR);
        new.metadata = Some(Bytes::from_static(b"phone\0"));
        store
            .create(user_id, &token_id(1), &new, None)
            .await
            .expect("no error");
        tick().await;
        assert!(
            store
                .refresh(user_id, &token_id(1), 2 * HOUR)
                .await
                .expect("no error")
        );
        let last = live_session(&store, user_id, &token_id(1)).await;
        let created = try_log_in(&store, user_id, 2, limit(1, on_full))
            .await
            .expect("no error");
        assert_eq!(created.evicted, [(token_id(1), last)]);
    }
}

/// Of sessions that began at the same time, the right number is evicted, each once.
pub async fn sessions_of_the_same_moment_are_evicted_all_the_same(backend: &impl Backend) {
    let store = backend.store().await;
    for (user_id, on_full) in ["oldest", "refreshed"].into_iter().zip(EVICTING) {
        for n in 0..40 {
            log_in(&store, user_id, &token_id(n)).await;
        }
        let mut before = store.list(user_id).await.expect("no error");
        let created = try_log_in(&store, user_id, 100, limit(10, on_full))
            .await
            .expect("no error");
        assert_eq!(created.evicted.len(), 31);
        let after = store.list(user_id).await.expect("no error");
        assert_eq!(after.len(), 10);
        // Together they are the sessions from before, and no remaining session is older than an evicted one.
        let mut all = [created.evicted.clone(), after.clone()].concat();
        all.retain(|(id, _)| *id != token_id(100));
        all.sort_by_key(|(id, _)| *id);
        before.sort_by_key(|(id, _)| *id);
        assert_eq!(all, before);
        let oldest_left = after.iter().map(|(_, session)| session.created_at).min();
        assert!(
            created
                .evicted
                .is_sorted_by_key(|(_, session)| session.created_at)
        );
        assert!(
            created
                .evicted
                .last()
                .map(|(_, session)| session.created_at)
                <= oldest_left
        );
    }
}

/// `Reject` returns `SessionLimit`, and changes neither the user's sessions nor the cached value.
pub async fn reject_refuses_and_changes_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    log_in_apart(&store, "al", &[1, 2, 3].map(token_id)).await;
    store
        .put_user("al", b"value", HOUR, PutMode::Replace)
        .await
        .expect("no error");
    let before = store.list("al").await.expect("no error");
    for max in [3, 2, 1] {
        let refused = try_log_in(&store, "al", 4, limit(max, OnFull::Reject)).await;
        let error = refused.expect_err("a full user is refused");
        assert_eq!(error.kind(), ErrorKind::SessionLimit);
        assert!(!error.is_fault());
        assert_eq!(store.list("al").await.expect("no error"), before);
        assert!(!is_live(&store, "al", &token_id(4)).await);
        assert_eq!(
            live(&store, "al", &token_id(1)).await.user.as_deref(),
            Some(&b"value"[..])
        );
    }
}

/// A repeated `create` finds its session, even where a new one would be refused or evict another.
pub async fn a_repeat_at_the_limit_is_no_new_session(backend: &impl Backend) {
    let store = backend.store().await;
    log_in_apart(&store, "al", &[1, 2, 3].map(token_id)).await;
    let before = store.list("al").await.expect("no error");
    for on_full in [
        OnFull::EvictOldest,
        OnFull::EvictLeastRecentlyRefreshed,
        OnFull::Reject,
    ] {
        for max in [3, 1] {
            let repeated = try_log_in(&store, "al", 2, limit(max, on_full))
                .await
                .expect("no error");
            assert!(repeated.evicted.is_empty());
            assert_eq!(store.list("al").await.expect("no error"), before);
        }
    }
}

/// A logout makes room for a new session, and without a limit none applies.
pub async fn what_was_deleted_makes_room(backend: &impl Backend) {
    let store = backend.store().await;
    let max = limit(2, OnFull::Reject);
    log_in(&store, "al", &token_id(1)).await;
    log_in(&store, "al", &token_id(2)).await;
    assert!(store.delete("al", &token_id(1)).await.expect("no error"));
    assert!(try_log_in(&store, "al", 3, max).await.is_ok());
    assert!(try_log_in(&store, "al", 4, max).await.is_err());
    assert!(try_log_in(&store, "al", 5, None).await.is_ok());
    assert!(try_log_in(&store, "al", 6, max).await.is_err());
    store
        .delete_all("al", Some(&token_id(5)))
        .await
        .expect("no error");
    assert!(try_log_in(&store, "al", 7, max).await.is_ok());
    assert!(try_log_in(&store, "al", 8, max).await.is_err());
}

/// Sessions of other users neither count nor are evicted.
pub async fn a_limit_is_for_one_user(backend: &impl Backend) {
    let store = backend.store().await;
    for on_full in [
        OnFull::EvictOldest,
        OnFull::EvictLeastRecentlyRefreshed,
        OnFull::Reject,
    ] {
        for user_id in ["al", "bo", "cy"] {
            store.delete_all(user_id, None).await.expect("no error");
            let created = try_log_in(&store, user_id, 1, limit(1, on_full))
                .await
                .expect("no error");
            assert!(created.evicted.is_empty());
        }
        for user_id in ["al", "bo", "cy"] {
            assert!(is_live(&store, user_id, &token_id(1)).await);
        }
    }
}

/// The largest limit holds.
pub async fn the_largest_limit_holds(backend: &impl Backend) {
    let store = backend.store().await;
    let max = SessionLimit::MAX;
    let first = log_in(&store, "al", &token_id(0)).await;
    tick().await;
    for n in 1..u128::from(max) {
        log_in(&store, "al", &token_id(n)).await;
    }
    let refused = try_log_in(&store, "al", 2000, limit(max, OnFull::Reject)).await;
    let error = refused.expect_err("a full user is refused");
    assert_eq!(error.kind(), ErrorKind::SessionLimit);
    let oldest = limit(max, OnFull::EvictOldest);
    let created = try_log_in(&store, "al", 2000, oldest).await;
    let created = created.expect("no error");
    assert_eq!(created.evicted, [(token_id(0), first)]);
    assert_eq!(listed(&store, "al").await.len(), max as usize);
}

/// A new limit ends all sessions in excess, even thousands, and reports at least the first 512 of them.
pub async fn a_new_limit_holds_for_thousands(backend: &impl Backend) {
    const MANY: u128 = 1400;
    let store = backend.store().await;
    for (user_id, on_full) in ["oldest", "refreshed"].into_iter().zip(EVICTING) {
        for n in 0..MANY {
            log_in(&store, user_id, &token_id(n)).await;
        }
        tick().await;
        let refused = try_log_in(&store, user_id, MANY, limit(3, OnFull::Reject)).await;
        let error = refused.expect_err("a full user is refused");
        assert_eq!(error.kind(), ErrorKind::SessionLimit);
        let before = store.list(user_id).await.expect("no error");
        assert_eq!(before.len() as u128, MANY);

        let created = try_log_in(&store, user_id, MANY, limit(3, on_full)).await;
        let created = created.expect("no error");
        let after = store.list(user_id).await.expect("no error");
        assert_eq!(after.len(), 3);
        assert!(after.iter().any(|(id, _)| *id == token_id(MANY)));
        let evicted = &created.evicted;
        assert!(evicted.is_sorted_by_key(|(_, session)| session.created_at));
        assert!(
            evicted.len() >= MIN_REPORTED,
            "only {} are reported",
            evicted.len()
        );
        for (id, session) in evicted {
            assert!(
                before.contains(&(*id, session.clone())),
                "not a session from before"
            );
            assert!(after.iter().all(|(other, _)| other != id), "still live");
        }
    }
}

/// Creates the `n`th session, for an hour.
async fn try_log_in(
    store: &impl SessionStore,
    user_id: &str,
    n: u128,
    limit: Option<SessionLimit>,
) -> Result<Created, crate::Error> {
    store
        .create(user_id, &token_id(n), &session(HOUR), limit)
        .await
}

fn ids(created: &Created) -> Vec<TokenId> {
    created.evicted.iter().map(|(id, _)| *id).collect()
}
