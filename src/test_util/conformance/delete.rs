//! Tests of `delete` and `delete_all`.

use super::helpers::{HOUR, is_live, listed, live_session, log_in, log_in_apart, tick, token_id};
use crate::{SessionStore, store::PutMode, test_util::Backend};

/// `delete` returns `true` for the call that ended the session, and `false` afterwards.
pub async fn a_session_is_deleted_once(backend: &impl Backend) {
    let store = backend.store().await;
    log_in_apart(&store, "al", &[1, 2].map(token_id)).await;
    assert!(store.delete("al", &token_id(1)).await.expect("no error"));
    assert!(!is_live(&store, "al", &token_id(1)).await);
    assert!(!store.delete("al", &token_id(1)).await.expect("no error"));
    assert_eq!(listed(&store, "al").await, [token_id(2)]);
    assert!(store.delete("al", &token_id(2)).await.expect("no error"));
    assert_eq!(listed(&store, "al").await, []);
    assert!(!store.delete("al", &token_id(2)).await.expect("no error"));
}

/// `delete` returns `false` for unknown users and tokens and for tokens of other users, which it does not change.
pub async fn deleting_what_never_was_is_false(backend: &impl Backend) {
    let store = backend.store().await;
    let bos = log_in(&store, "bo", &token_id(1)).await;
    assert!(!store.delete("al", &token_id(1)).await.expect("no error"));
    assert!(!store.delete("bo", &token_id(2)).await.expect("no error"));
    assert_eq!(live_session(&store, "bo", &token_id(1)).await, bos);
}

/// A new session with the id of a deleted one has nothing of it.
pub async fn a_deleted_session_can_be_created_anew(backend: &impl Backend) {
    let store = backend.store().await;
    let first = log_in(&store, "al", &token_id(1)).await;
    tick().await;
    store.delete("al", &token_id(1)).await.expect("no error");
    let second = log_in(&store, "al", &token_id(1)).await;
    assert!(first.created_at < second.created_at);
    assert_eq!(second.refreshed_at, second.created_at);
    tick().await;
    store.delete_all("al", None).await.expect("no error");
    let third = log_in(&store, "al", &token_id(1)).await;
    assert!(second.created_at < third.created_at);
    assert_eq!(live_session(&store, "al", &token_id(1)).await, third);
}

/// `delete_all` ends and counts all sessions of one user, and none of another.
pub async fn delete_all_ends_all_sessions_of_the_user_only(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..20 {
        log_in(&store, "al", &token_id(n)).await;
    }
    log_in(&store, "bo", &token_id(1)).await;
    assert_eq!(store.delete_all("al", None).await.expect("no error"), 20);
    assert_eq!(listed(&store, "al").await, []);
    for n in 0..20 {
        assert!(!is_live(&store, "al", &token_id(n)).await);
    }
    assert!(is_live(&store, "bo", &token_id(1)).await);
    assert_eq!(store.delete_all("al", None).await.expect("no error"), 0);
    assert_eq!(store.delete_all("nobody", None).await.expect("no error"), 0);
}

/// The excepted session keeps its record, and a repeated call deletes nothing more.
pub async fn delete_all_keeps_the_excepted_session(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..20 {
        log_in(&store, "al", &token_id(n)).await;
    }
    let kept = live_session(&store, "al", &token_id(7)).await;
    for removed in [19, 0] {
        let count = store
            .delete_all("al", Some(&token_id(7)))
            .await
            .expect("no error");
        assert_eq!(count, removed);
        assert_eq!(live_session(&store, "al", &token_id(7)).await, kept);
        assert_eq!(
            store.list("al").await.expect("no error"),
            [(token_id(7), kept.clone())]
        );
    }
    // It can still be refreshed and deleted like any other.
    assert!(
        store
            .refresh("al", &token_id(7), 2 * HOUR)
            .await
            .expect("no error")
    );
    assert!(store.delete("al", &token_id(7)).await.expect("no error"));
}

/// An exception with an unknown id or another user's id creates no session and keeps none.
pub async fn an_exception_that_is_not_live_keeps_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    log_in(&store, "bo", &token_id(9)).await;
    for except in [8, 9].map(token_id) {
        log_in(&store, "al", &token_id(1)).await;
        log_in(&store, "al", &token_id(2)).await;
        assert_eq!(
            store
                .delete_all("al", Some(&except))
                .await
                .expect("no error"),
            2
        );
        assert_eq!(listed(&store, "al").await, []);
        assert!(!is_live(&store, "al", &except).await);
        assert_eq!(
            store
                .delete_all("al", Some(&except))
                .await
                .expect("no error"),
            0
        );
        assert!(!is_live(&store, "al", &except).await);
    }
    assert!(is_live(&store, "bo", &token_id(9)).await);
}

/// With thousands of sessions, `delete_all` ends all of them and keeps the excepted one.
pub async fn delete_all_of_thousands_is_complete(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..2000 {
        log_in(&store, "al", &token_id(n)).await;
    }
    let except = token_id(1234);
    assert_eq!(
        store
            .delete_all("al", Some(&except))
            .await
            .expect("no error"),
        1999
    );
    assert_eq!(listed(&store, "al").await, [except]);
    assert_eq!(store.delete_all("al", None).await.expect("no error"), 1);
    assert_eq!(listed(&store, "al").await, []);
}

/// `delete_all` does not affect later sessions.
pub async fn sessions_after_delete_all_live(backend: &impl Backend) {
    let store = backend.store().await;
    log_in(&store, "al", &token_id(1)).await;
    store.delete_all("al", None).await.expect("no error");
    log_in(&store, "al", &token_id(2)).await;
    assert!(is_live(&store, "al", &token_id(2)).await);
    assert_eq!(listed(&store, "al").await, [token_id(2)]);
}

/// `delete` and `delete_all` keep the cached user.
pub async fn deletes_leave_the_cached_user(backend: &impl Backend) {
    let store = backend.store().await;
    store
        .put_user("al", b"value", HOUR, PutMode::Replace)
        .await
        .expect("no error");
    for n in 0..3 {
        log_in(&store, "al", &token_id(n)).await;
    }
    store.delete("al", &token_id(0)).await.expect("no error");
    store
        .delete_all("al", Some(&token_id(1)))
        .await
        .expect("no error");
    store.delete_all("al", None).await.expect("no error");
    assert_eq!(
        store.get_user("al").await.expect("no error").as_deref(),
        Some(&b"value"[..])
    );
}
