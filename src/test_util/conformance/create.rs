//! Tests of `create` without limits.

use std::time::Duration;

use super::helpers::{
    DAY, HOUR, is_live, listed, live, live_session, log_in, session, tick, token_id,
};
use crate::{
    SessionStore,
    store::{MAX_TTL, SessionRecord},
    test_util::Backend,
};
use bytes::Bytes;

/// `create` returns the new session, and `check` and `list` return the same record.
pub async fn a_new_session_is_live_and_as_ordered(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let created = store
        .create("al", &id, &session(HOUR), None)
        .await
        .expect("no error");

    assert!(created.evicted.is_empty());
    let created_at = created.session.created_at;
    let mut expected = SessionRecord::begin(&session(HOUR), std::time::SystemTime::UNIX_EPOCH);
    expected.created_at = created_at;
    expected.refreshed_at = created_at;
    expected.authenticated_at = created_at;
    expected.expires_at = created_at + HOUR;
    expected.ends_at = None;
    expected.metadata = None;
    assert_eq!(created.session, expected);
    assert_eq!(live_session(&store, "al", &id).await, expected);
    assert_eq!(store.list("al").await.expect("no error"), [(id, expected)]);
}

/// The expiry is `ttl` after the creation, or `max_lifetime` after it if that is earlier.
pub async fn the_absolute_end_caps_the_expiry(backend: &impl Backend) {
    let store = backend.store().await;
    for (n, ttl, max_lifetime) in [(1, HOUR, DAY), (2, DAY, HOUR), (3, HOUR, HOUR)] {
        let mut new = session(ttl);
        new.max_lifetime = Some(max_lifetime);
        let created = store
            .create("al", &token_id(n), &new, None)
            .await
            .expect("no error");
        let SessionRecord {
            created_at,
            expires_at,
            ends_at,
            ..
        } = created.session;
        assert_eq!(expires_at, created_at + ttl.min(max_lifetime));
        assert_eq!(ends_at, Some(created_at + max_lifetime));
        assert_eq!(
            live_session(&store, "al", &token_id(n)).await,
            created.session
        );
    }
}

/// A repeated `create` returns the live session unchanged, whatever its arguments.
pub async fn repeating_a_live_session_changes_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut first = session(HOUR);
    first.metadata = Some(Bytes::from_static(b"first"));
    let mut second = session(DAY);
    second.max_lifetime = Some(2 * DAY);
    second.metadata = Some(Bytes::from_static(b"second"));
    let created = store
        .create("al", &id, &first, None)
        .await
        .expect("no error");
    tick().await;
    let repeated = backend.store().await.create("al", &id, &second, None).await;
    assert_eq!(repeated.expect("no error").session, created.session);

    store.refresh("al", &id, 2 * HOUR).await.expect("no error");
    let refreshed = live_session(&store, "al", &id).await;
    let repeated = store
        .create("al", &id, &second, None)
        .await
        .expect("no error");
    assert_eq!(repeated.session, refreshed);
    assert!(repeated.evicted.is_empty());
    assert_eq!(store.list("al").await.expect("no error"), [(id, refreshed)]);
}

/// The same token id under another user is another session.
pub async fn a_session_belongs_to_its_user(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    assert!(!is_live(&store, "bo", &id).await);

    let bos = store
        .create("bo", &id, &session(DAY), None)
        .await
        .expect("no error");
    assert_eq!(bos.session.expires_at, bos.session.created_at + DAY);
    assert!(store.delete("al", &id).await.expect("no error"));
    assert_eq!(live_session(&store, "bo", &id).await, bos.session);
    assert_eq!(listed(&store, "al").await, []);
}

/// Metadata is opaque: `create`, `check` and `list` return any bytes unchanged, also after a refresh.
pub async fn metadata_is_kept_byte_for_byte(backend: &impl Backend) {
    let store = backend.store().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let kinds = [
        Bytes::from_static(b"{\"device\":\"Pixel \xf0\x9f\xa6\x80\"}"),
        Bytes::from_static(b"\0"),
        every_byte.into(),
        vec![0xFF; 4096].into(),
    ];
    for (n, metadata) in (1..).zip(kinds) {
        let (user_id, id) = (format!("user {n}"), token_id(n));
        let mut new = session(HOUR);
        new.metadata = Some(metadata.clone());
        let created = store
            .create(&user_id, &id, &new, None)
            .await
            .expect("no error");
        assert_eq!(created.session.metadata.as_ref(), Some(&metadata));

        assert!(store.refresh(&user_id, &id, DAY).await.expect("no error"));
        let checked = live(&store, &user_id, &id).await;
        assert_eq!(checked.session.metadata.as_ref(), Some(&metadata));
        let list = store.list(&user_id).await.expect("no error");
        assert_eq!(list[0].1.metadata.as_ref(), Some(&metadata));
    }
}

/// Empty metadata is the same as `None`.
pub async fn empty_metadata_is_no_metadata(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut new = session(HOUR);
    new.metadata = Some(Bytes::new());
    let created = store.create("al", &id, &new, None).await.expect("no error");
    assert_eq!(created.session.metadata, None);
    assert_eq!(live_session(&store, "al", &id).await.metadata, None);
}

/// Durations are not rounded to seconds.
pub async fn durations_are_kept_to_the_millisecond(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut new = session(Duration::from_millis(1_234_567));
    new.max_lifetime = Some(Duration::from_millis(98_765_432_101));
    let created = store
        .create("al", &id, &new, None)
        .await
        .expect("no error")
        .session;
    assert_eq!(
        created.expires_at,
        created.created_at + Duration::from_millis(1_234_567)
    );
    assert_eq!(
        created.ends_at,
        Some(created.created_at + Duration::from_millis(98_765_432_101))
    );
    let ttl = Duration::from_millis(7_654_321);
    assert!(store.refresh("al", &id, ttl).await.expect("no error"));
    let refreshed = live_session(&store, "al", &id).await;
    assert_eq!(refreshed.expires_at, refreshed.refreshed_at + ttl);
}

/// Every duration may be a century or a millisecond.
pub async fn the_longest_and_the_shortest_durations_work(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    for ttl in [MAX_TTL, Duration::from_millis(1)] {
        let mut new = session(ttl);
        new.max_lifetime = Some(ttl);
        let created = store
            .create("al", &id, &new, None)
            .await
            .expect("no error")
            .session;
        assert_eq!(created.expires_at, created.created_at + ttl);
        assert_eq!(created.ends_at, Some(created.expires_at));
        let mode = crate::store::PutMode::Replace;
        assert!(
            store
                .put_user("al", b"value", ttl, mode)
                .await
                .expect("no error")
        );
        if ttl == MAX_TTL {
            assert!(store.refresh("al", &id, ttl).await.expect("no error"));
            let checked = live(&store, "al", &id).await;
            assert_eq!(checked.session.expires_at, created.expires_at);
            assert_eq!(checked.user.as_deref(), Some(&b"value"[..]));
            assert!(store.delete("al", &id).await.expect("no error"));
        }
    }
    tick().await;
    assert!(!is_live(&store, "al", &id).await);
    assert_eq!(store.get_user("al").await.expect("no error"), None);
}
