//! Tests of `refresh`.

use std::time::Duration;

use super::helpers::{
    DAY, HOUR, SHORT, is_live, listed, live, live_session, log_in, outlive_short, session, tick,
    token_id,
};
use crate::{SessionStore, test_util::Backend};
use bytes::Bytes;

/// A refresh sets the expiry to `ttl` from now and the time of the refresh, and nothing else.
pub async fn a_refresh_moves_the_expiry_and_nothing_else(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut new = session(HOUR);
    new.max_lifetime = Some(30 * DAY);
    new.metadata = Some(Bytes::from_static(b"\x01\0metadata"));
    let created = store
        .create("al", &id, &new, None)
        .await
        .expect("no error")
        .session;
    let mut before = created.created_at;
    for hours in [2, 5, 3] {
        tick().await;
        assert!(
            store
                .refresh("al", &id, hours * HOUR)
                .await
                .expect("no error")
        );
        let checked = live(&store, "al", &id).await;
        let refreshed_at = checked.session.refreshed_at;
        assert!(before < refreshed_at && refreshed_at <= checked.now);
        let mut expected = created.clone();
        expected.refreshed_at = refreshed_at;
        expected.expires_at = refreshed_at + hours * HOUR;
        assert_eq!(*checked.session, expected);
        assert_eq!(store.list("al").await.expect("no error"), [(id, expected)]);
        before = refreshed_at;
    }
}

/// A refresh with a ttl below the remaining time shortens the session.
pub async fn a_refresh_may_shorten(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    store
        .create("al", &id, &session(DAY), None)
        .await
        .expect("no error");
    assert!(store.refresh("al", &id, HOUR).await.expect("no error"));
    let shortened = live_session(&store, "al", &id).await;
    assert_eq!(shortened.expires_at, shortened.refreshed_at + HOUR);
}

/// A shortened session ends at its new expiry.
pub async fn a_shortened_session_dies_early(backend: &impl Backend) {
    let store = backend.store().await;
    log_in(&store, "al", &token_id(1)).await;
    log_in(&store, "al", &token_id(2)).await;
    assert!(
        store
            .refresh("al", &token_id(1), SHORT)
            .await
            .expect("no error")
    );
    outlive_short().await;
    assert!(!is_live(&store, "al", &token_id(1)).await);
    assert_eq!(listed(&store, "al").await, [token_id(2)]);
}

/// No refresh changes `ends_at`, or sets `expires_at` to a later time.
pub async fn a_refresh_never_passes_the_absolute_end(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut new = session(HOUR);
    new.max_lifetime = Some(2 * HOUR);
    let created = store
        .create("al", &id, &new, None)
        .await
        .expect("no error")
        .session;
    for ttl in [DAY, 2 * HOUR, 365 * DAY] {
        tick().await;
        assert!(store.refresh("al", &id, ttl).await.expect("no error"));
        let session = live_session(&store, "al", &id).await;
        assert_eq!(session.ends_at, created.ends_at);
        assert_eq!(Some(session.expires_at), session.ends_at);
    }
    // A ttl that ends earlier counts again.
    assert!(
        store
            .refresh("al", &id, Duration::from_secs(1000))
            .await
            .expect("no error")
    );
    let session = live_session(&store, "al", &id).await;
    assert_eq!(
        session.expires_at,
        session.refreshed_at + Duration::from_secs(1000)
    );
}

/// A refresh of an unknown session returns `false`, and creates none.
pub async fn a_refresh_creates_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    log_in(&store, "bo", &token_id(1)).await;
    for user_id in ["al", "bo"] {
        assert!(
            !store
                .refresh(user_id, &token_id(9), HOUR)
                .await
                .expect("no error")
        );
        assert!(!is_live(&store, user_id, &token_id(9)).await);
    }
    assert!(
        !store
            .refresh("al", &token_id(1), HOUR)
            .await
            .expect("no error")
    );
    assert_eq!(listed(&store, "al").await, []);
    assert_eq!(listed(&store, "bo").await, [token_id(1)]);
}

/// A refresh of a session that was deleted, deleted with all others, or has expired returns `false`.
pub async fn a_refresh_never_brings_a_session_back(backend: &impl Backend) {
    let store = backend.store().await;
    let [deleted, swept, expired, kept] = [1, 2, 3, 4].map(token_id);
    for id in [&deleted, &swept, &kept] {
        log_in(&store, "al", id).await;
    }
    assert!(store.delete("al", &deleted).await.expect("no error"));
    store.delete_all("al", Some(&kept)).await.expect("no error");
    store
        .create("al", &expired, &session(SHORT), None)
        .await
        .expect("no error");
    outlive_short().await;
    for id in [&deleted, &swept, &expired] {
        assert!(!store.refresh("al", id, HOUR).await.expect("no error"));
        assert!(!is_live(&store, "al", id).await);
    }
    assert_eq!(listed(&store, "al").await, [kept]);
    store.delete_all("al", None).await.expect("no error");
    assert!(!store.refresh("al", &kept, HOUR).await.expect("no error"));
    assert_eq!(listed(&store, "al").await, []);
}

/// A refresh changes neither the user's other sessions nor those of other users.
pub async fn a_refresh_touches_one_session_only(backend: &impl Backend) {
    let store = backend.store().await;
    let other = log_in(&store, "al", &token_id(2)).await;
    let bos = log_in(&store, "bo", &token_id(1)).await;
    log_in(&store, "al", &token_id(1)).await;
    tick().await;
    assert!(
        store
            .refresh("al", &token_id(1), DAY)
            .await
            .expect("no error")
    );
    assert_eq!(live_session(&store, "al", &token_id(2)).await, other);
    assert_eq!(live_session(&store, "bo", &token_id(1)).await, bos);
}
