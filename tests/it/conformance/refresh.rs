//! `refresh`.

use std::time::Duration;

use bytes::Bytes;
use tower_bearer_session::SessionStore;

use crate::stores::{
    Backend, DAY, HOUR, SHORT, is_live, listed, live, log_in, on_every_store, outlive_short,
    session, tick, token_id,
};

on_every_store!(
    a_refresh_moves_the_expiry_and_nothing_else,
    a_refresh_may_shorten,
    a_shortened_session_dies_early,
    a_refresh_never_passes_the_absolute_end,
    a_refresh_creates_nothing,
    a_refresh_never_brings_a_session_back,
    a_refresh_touches_one_session_only,
);

/// The expiry is `ttl` from now; the rest of the record stays, but for the time of the refresh.
async fn a_refresh_moves_the_expiry_and_nothing_else(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut new = session(HOUR);
    new.max_lifetime = Some(30 * DAY);
    new.metadata = Some(Bytes::from_static(b"\x01\0metadata"));
    let created = store.create("al", &id, &new, None).await.unwrap().session;
    let mut before = created.created_at;
    for hours in [2, 5, 3] {
        tick().await;
        assert!(store.refresh("al", &id, hours * HOUR).await.unwrap());
        let checked = live(&store, "al", &id).await;
        let refreshed_at = checked.session.refreshed_at;
        assert!(before < refreshed_at && refreshed_at <= checked.now);
        let mut expected = created.clone();
        expected.refreshed_at = refreshed_at;
        expected.expires_at = refreshed_at + hours * HOUR;
        assert_eq!(checked.session, expected);
        assert_eq!(store.list("al").await.unwrap(), [(id, expected)]);
        before = refreshed_at;
    }
}

/// A shorter ttl than what is left wins.
async fn a_refresh_may_shorten(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    store.create("al", &id, &session(DAY), None).await.unwrap();
    assert!(store.refresh("al", &id, HOUR).await.unwrap());
    let shortened = live(&store, "al", &id).await.session;
    assert_eq!(shortened.expires_at, shortened.refreshed_at + HOUR);
}

/// A session that was shortened is gone at the new expiry, not at the old one.
async fn a_shortened_session_dies_early(backend: &impl Backend) {
    let store = backend.store().await;
    log_in(&store, "al", &token_id(1)).await;
    log_in(&store, "al", &token_id(2)).await;
    assert!(store.refresh("al", &token_id(1), SHORT).await.unwrap());
    outlive_short().await;
    assert!(!is_live(&store, "al", &token_id(1)).await);
    assert_eq!(listed(&store, "al").await, [token_id(2)]);
}

/// However often and however long: `ends_at` stays, and `expires_at` is not after it.
async fn a_refresh_never_passes_the_absolute_end(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut new = session(HOUR);
    new.max_lifetime = Some(2 * HOUR);
    let created = store.create("al", &id, &new, None).await.unwrap().session;
    for ttl in [DAY, 2 * HOUR, 365 * DAY] {
        tick().await;
        assert!(store.refresh("al", &id, ttl).await.unwrap());
        let session = live(&store, "al", &id).await.session;
        assert_eq!(session.ends_at, created.ends_at);
        assert_eq!(Some(session.expires_at), session.ends_at);
    }
    // Below the end the ttl counts again.
    assert!(
        store
            .refresh("al", &id, Duration::from_secs(1000))
            .await
            .unwrap()
    );
    let session = live(&store, "al", &id).await.session;
    assert_eq!(
        session.expires_at,
        session.refreshed_at + Duration::from_secs(1000)
    );
}

/// Of a session that never was there is nothing after a refresh either.
async fn a_refresh_creates_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    log_in(&store, "bo", &token_id(1)).await;
    for user_id in ["al", "bo"] {
        assert!(!store.refresh(user_id, &token_id(9), HOUR).await.unwrap());
        assert!(!is_live(&store, user_id, &token_id(9)).await);
    }
    assert!(!store.refresh("al", &token_id(1), HOUR).await.unwrap());
    assert_eq!(listed(&store, "al").await, []);
    assert_eq!(listed(&store, "bo").await, [token_id(1)]);
}

/// Deleted, deleted with all others, or expired: a refresh says `false`, and the session stays dead.
async fn a_refresh_never_brings_a_session_back(backend: &impl Backend) {
    let store = backend.store().await;
    let [deleted, swept, expired, kept] = [1, 2, 3, 4].map(token_id);
    for id in [&deleted, &swept, &kept] {
        log_in(&store, "al", id).await;
    }
    assert!(store.delete("al", &deleted).await.unwrap());
    store.delete_all("al", Some(&kept)).await.unwrap();
    store
        .create("al", &expired, &session(SHORT), None)
        .await
        .unwrap();
    outlive_short().await;
    for id in [&deleted, &swept, &expired] {
        assert!(!store.refresh("al", id, HOUR).await.unwrap());
        assert!(!is_live(&store, "al", id).await);
    }
    assert_eq!(listed(&store, "al").await, [kept]);
    store.delete_all("al", None).await.unwrap();
    assert!(!store.refresh("al", &kept, HOUR).await.unwrap());
    assert_eq!(listed(&store, "al").await, []);
}

/// Neither the user's other sessions nor other users' notice.
async fn a_refresh_touches_one_session_only(backend: &impl Backend) {
    let store = backend.store().await;
    let other = log_in(&store, "al", &token_id(2)).await;
    let bos = log_in(&store, "bo", &token_id(1)).await;
    log_in(&store, "al", &token_id(1)).await;
    tick().await;
    assert!(store.refresh("al", &token_id(1), DAY).await.unwrap());
    assert_eq!(live(&store, "al", &token_id(2)).await.session, other);
    assert_eq!(live(&store, "bo", &token_id(1)).await.session, bos);
}
