//! Tests that every method treats expired sessions and values as absent.
//!
//! Each test has a live session or value of the same user beside the expired ones, and more expired ones than a store
//! may free along with a call: the result must not depend on what is freed.

use std::time::Instant;

use super::helpers::{
    DAY, HOUR, SHORT, is_live, limit, listed, live, live_session, log_in, outlive_short,
    replacement, session, token_id,
};
use crate::{
    OnFull, SessionStore, TokenId,
    store::{PutMode, SessionChange},
    test_util::Backend,
};

const EXPIRED: u128 = 60;

/// `check`, `list` and `refresh` do not find expired sessions, and the live one stays.
pub async fn expired_sessions_are_not_live_and_not_listed(backend: &impl Backend) {
    let (store, kept) = expired_sessions(backend).await;
    assert_eq!(listed(&store, "al").await, [kept]);
    for n in 0..EXPIRED {
        assert!(!is_live(&store, "al", &token_id(n)).await);
        assert!(
            !store
                .refresh("al", &token_id(n), HOUR)
                .await
                .expect("no error")
        );
        assert!(!is_live(&store, "al", &token_id(n)).await);
    }
    assert_eq!(listed(&store, "al").await, [kept]);
}

/// `delete` returns `true` only for a live session.
pub async fn deleting_an_expired_session_is_false(backend: &impl Backend) {
    let (store, kept) = expired_sessions(backend).await;
    for n in (0..EXPIRED).rev() {
        assert!(!store.delete("al", &token_id(n)).await.expect("no error"));
    }
    assert!(store.delete("al", &kept).await.expect("no error"));
}

/// A new session with the id of an expired one has nothing of it.
pub async fn an_expired_session_can_be_created_anew(backend: &impl Backend) {
    let (store, kept) = expired_sessions(backend).await;
    let kept = live(&store, "al", &kept).await;
    for n in (0..EXPIRED).rev() {
        let anew = log_in(&store, "al", &token_id(n)).await;
        assert!(kept.session.created_at < anew.created_at);
        assert_eq!(anew.expires_at, anew.created_at + HOUR);
        assert_eq!(live_session(&store, "al", &token_id(n)).await, anew);
    }
}

/// `delete_all` keeps the excepted session only if it is live.
pub async fn an_expired_session_is_no_exception(backend: &impl Backend) {
    let (store, kept) = expired_sessions(backend).await;
    let expired = token_id(EXPIRED - 1);
    let removed = store
        .delete_all("al", Some(&expired))
        .await
        .expect("no error");
    // The live session, and those expired ones that were not freed yet.
    assert!((1..=1 + EXPIRED as u64).contains(&removed));
    assert!(!is_live(&store, "al", &expired).await);
    assert!(!is_live(&store, "al", &kept).await);
    assert_eq!(listed(&store, "al").await, []);
    assert_eq!(store.delete_all("al", None).await.expect("no error"), 0);
}

/// An update of an expired session ends no other session.
pub async fn an_expired_session_ends_no_others(backend: &impl Backend) {
    let (store, kept) = expired_sessions(backend).await;
    for n in (0..EXPIRED).rev() {
        for mut change in [
            SessionChange::refresh(DAY),
            replacement(token_id(n), token_id(2000), HOUR),
        ] {
            change.end_others = true;
            let updated = store.update("al", &token_id(n), &change).await;
            assert_eq!(updated.expect("no error"), None);
        }
    }
    assert_eq!(listed(&store, "al").await, [kept]);
}

/// An update that ends the other sessions keeps no expired one, and brings none back.
pub async fn the_others_end_beside_expired_ones(backend: &impl Backend) {
    let (store, other) = expired_sessions(backend).await;
    let id = token_id(1001);
    log_in(&store, "al", &id).await;
    let mut change = SessionChange::refresh(DAY);
    change.end_others = true;
    let updated = store.update("al", &id, &change).await;
    let updated = updated.expect("no error").expect("the session is live");
    // The live one, and those expired ones that were not freed yet.
    assert!((1..=1 + EXPIRED as u64).contains(&updated.ended));
    assert_eq!(listed(&store, "al").await, [id]);
    assert!(!is_live(&store, "al", &other).await);
    for n in 0..EXPIRED {
        assert!(!is_live(&store, "al", &token_id(n)).await);
    }
    // They can begin anew.
    log_in(&store, "al", &other).await;
    log_in(&store, "al", &token_id(0)).await;
    assert_eq!(listed(&store, "al").await.len(), 3);
}

/// A login is not refused because of expired sessions, and does not report them as evicted.
pub async fn expired_sessions_do_not_count_for_the_limit(backend: &impl Backend) {
    let (store, kept) = expired_sessions(backend).await;
    for (n, on_full) in [
        (101, OnFull::Reject),
        (102, OnFull::EvictOldest),
        (103, OnFull::EvictLeastRecentlyRefreshed),
    ] {
        // Leave room for one more than the live sessions.
        let max = limit(n - 99, on_full);
        let created = store
            .create("al", &token_id(n.into()), &session(HOUR), max)
            .await;
        assert!(created.expect("no error").evicted.is_empty());
    }
    let created = store
        .create(
            "al",
            &token_id(104),
            &session(HOUR),
            limit(4, OnFull::EvictOldest),
        )
        .await;
    let evicted: Vec<TokenId> = created
        .expect("no error")
        .evicted
        .iter()
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(evicted, [kept]);
}

/// `get_user`, `check` and the condition of `put_user` treat an expired value as absent.
pub async fn expired_values_are_none(backend: &impl Backend) {
    let store = backend.store().await;
    log_in(&store, "al", &token_id(1)).await;
    let users: Vec<String> = (0..EXPIRED).map(|n| format!("user {n}")).collect();
    for user_id in users.iter().map(String::as_str).chain(["al", "bo"]) {
        assert!(
            store
                .put_user(user_id, b"old", SHORT, PutMode::Replace)
                .await
                .expect("no error")
        );
    }
    outlive_short().await;
    assert_eq!(live(&store, "al", &token_id(1)).await.user, None);
    for user_id in users.iter().rev() {
        assert_eq!(store.get_user(user_id).await.expect("no error"), None);
    }
    let unchanged = PutMode::IfUnchanged(Some(b"old"));
    assert!(
        !store
            .put_user("al", b"new", HOUR, unchanged)
            .await
            .expect("no error")
    );
    assert_eq!(store.get_user("al").await.expect("no error"), None);
    let absent = PutMode::IfUnchanged(None);
    assert!(
        store
            .put_user("bo", b"new", HOUR, absent)
            .await
            .expect("no error")
    );
    assert_eq!(
        store.get_user("bo").await.expect("no error").as_deref(),
        Some(&b"new"[..])
    );
}

/// Refreshes do not prolong a session past its absolute end.
pub async fn an_absolute_end_that_is_reached_ends_the_session(backend: &impl Backend) {
    let store = backend.store().await;
    let kept = token_id(1);
    log_in(&store, "al", &kept).await;
    let mut new = session(HOUR);
    new.max_lifetime = Some(SHORT);
    let created = store
        .create("al", &token_id(2), &new, None)
        .await
        .expect("no error")
        .session;
    let end = created.ends_at.expect("an absolute end");
    assert_eq!(created.expires_at, end);

    let began = Instant::now();
    while store
        .refresh("al", &token_id(2), HOUR)
        .await
        .expect("no error")
    {
        assert!(
            began.elapsed() < 100 * SHORT,
            "a session past its absolute end was refreshed"
        );
        if let Some(checked) = store.check("al", &token_id(2)).await.expect("no error") {
            assert_eq!(checked.session.expires_at, end);
        }
    }
    outlive_short().await;
    assert!(!is_live(&store, "al", &token_id(2)).await);
    assert_eq!(listed(&store, "al").await, [kept]);
    assert!(live(&store, "al", &kept).await.now > end);
}

/// Creates a user "al" with [`EXPIRED`] expired sessions and an older live one.
async fn expired_sessions<B: Backend>(backend: &B) -> (B::Store, TokenId) {
    let store = backend.store().await;
    let kept = token_id(1000);
    log_in(&store, "al", &kept).await;
    for n in 0..EXPIRED {
        store
            .create("al", &token_id(n), &session(SHORT), None)
            .await
            .expect("no error");
    }
    outlive_short().await;
    (store, kept)
}
