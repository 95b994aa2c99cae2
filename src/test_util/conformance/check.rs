//! Tests of `check`.

use super::helpers::{
    DAY, HOUR, SHORT, is_live, listed, live, live_session, log_in, outlive_short, session, token_id,
};
use crate::{
    SessionStore,
    store::{Checked, PutMode},
    test_util::Backend,
};

/// Unknown users, unknown tokens, and tokens of other users are not live.
pub async fn what_was_never_created_is_not_live(backend: &impl Backend) {
    let store = backend.store().await;
    assert!(!is_live(&store, "al", &token_id(1)).await);
    log_in(&store, "al", &token_id(1)).await;
    log_in(&store, "bo", &token_id(2)).await;
    assert!(!is_live(&store, "al", &token_id(2)).await);
    assert!(!is_live(&store, "bo", &token_id(1)).await);
    assert!(!is_live(&store, "cy", &token_id(1)).await);
}

/// A check returns the user's current cached value with the session, and `None` without one.
pub async fn a_check_brings_the_cached_user(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    store
        .put_user("bo", b"bo", HOUR, PutMode::Replace)
        .await
        .expect("no error");
    assert_eq!(live(&store, "al", &id).await.user, None);

    for value in [&b"one"[..], b"two \xff\0", b""] {
        store
            .put_user("al", value, HOUR, PutMode::Replace)
            .await
            .expect("no error");
        assert_eq!(live(&store, "al", &id).await.user.as_deref(), Some(value));
    }
    store
        .put_user("al", b"short", SHORT, PutMode::Replace)
        .await
        .expect("no error");
    outlive_short().await;
    assert_eq!(live(&store, "al", &id).await.user, None);
    // A cached value does not make a session live.
    assert!(!is_live(&store, "bo", &id).await);
}

/// If `check_now` answers, its answer is that of `check`: for sessions that are live, unknown, of another user, expired
/// and deleted, with and without a cached value.
pub async fn an_answer_at_once_is_that_of_a_check(backend: &impl Backend) {
    let store = backend.store().await;
    let [long, short, deleted] = [1, 2, 3].map(token_id);
    log_in(&store, "al", &long).await;
    log_in(&store, "bo", &long).await;
    log_in(&store, "al", &deleted).await;
    let ended = store.delete("al", &deleted).await;
    assert!(ended.expect("no error"));
    let new = session(SHORT);
    let created = store.create("al", &short, &new, None).await;
    created.expect("no error");
    outlive_short().await;
    let put = store.put_user("al", b"cached", HOUR, PutMode::Replace);
    assert!(put.await.expect("no error"));
    for user_id in ["al", "bo", "cy"] {
        for id in [&long, &short, &deleted, &token_id(4)] {
            let checked = store.check(user_id, id).await.expect("no error");
            let Some(at_once) = store.check_now(user_id, id) else {
                return;
            };
            let seen = |checked: Checked| (checked.session, checked.user);
            assert_eq!(
                at_once.expect("no error").map(seen),
                checked.map(seen),
                "{id} of {user_id}"
            );
        }
    }
}

/// Checks of live and of unknown tokens change nothing.
pub async fn a_check_writes_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let created = log_in(&store, "al", &id).await;
    for n in 2..50 {
        assert!(!is_live(&store, "al", &token_id(n)).await);
        assert!(!is_live(&store, "bo", &token_id(n)).await);
        assert_eq!(live_session(&store, "al", &id).await, created);
    }
    assert_eq!(listed(&store, "al").await, [id]);
    assert_eq!(listed(&store, "bo").await, []);
    assert_eq!(store.delete_all("bo", None).await.expect("no error"), 0);
    assert_eq!(store.get_user("al").await.expect("no error"), None);
}

/// `now` is on the same clock as the times of the record, and never goes back.
pub async fn the_time_of_a_check_is_the_stores_and_goes_forward(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut before = log_in(&store, "al", &id).await.created_at;
    for _ in 0..20 {
        let checked = live(&store, "al", &id).await;
        assert!(before <= checked.now);
        assert!(checked.now < checked.session.expires_at);
        before = checked.now;
    }
    store.refresh("al", &id, DAY).await.expect("no error");
    let checked = live(&store, "al", &id).await;
    assert!(checked.session.refreshed_at <= checked.now);
    assert!(checked.session.expires_at > checked.now + DAY - HOUR);
}

/// All handles see a change by one handle at once.
pub async fn every_handle_sees_the_same(backend: &impl Backend) {
    let (store, other) = (backend.store().await, backend.store().await);
    for n in 0..50 {
        let id = token_id(n);
        let created = log_in(&store, "al", &id).await;
        assert_eq!(live_session(&other, "al", &id).await, created);
        store
            .put_user("al", &[n as u8], HOUR, PutMode::Replace)
            .await
            .expect("no error");
        assert_eq!(
            other.get_user("al").await.expect("no error").as_deref(),
            Some(&[n as u8][..])
        );
        assert!(other.delete("al", &id).await.expect("no error"));
        assert!(!is_live(&store, "al", &id).await);
    }
}
