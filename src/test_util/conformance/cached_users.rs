//! Tests of `get_user` and `put_user`.

use super::helpers::{DAY, HOUR, SHORT, listed, log_in, outlive_short, token_id};
use crate::{
    SessionStore,
    store::PutMode::{IfUnchanged, Replace},
    test_util::Backend,
};

/// `Replace` writes whether or not there is a value.
pub async fn replace_always_writes(backend: &impl Backend) {
    let store = backend.store().await;
    assert_eq!(store.get_user("al").await.expect("no error"), None);
    for value in ["one", "two", "two", ""] {
        assert!(
            store
                .put_user("al", value.as_bytes(), HOUR, Replace)
                .await
                .expect("no error")
        );
        assert_eq!(
            cached(&store, "al").await.expect("no error"),
            value.as_bytes()
        );
    }
}

/// `IfUnchanged(None)` writes only without a value; an empty value counts as one.
pub async fn if_none_writes_only_once(backend: &impl Backend) {
    let store = backend.store().await;
    assert!(
        store
            .put_user("al", b"first", HOUR, IfUnchanged(None))
            .await
            .expect("no error")
    );
    assert!(
        !store
            .put_user("al", b"second", HOUR, IfUnchanged(None))
            .await
            .expect("no error")
    );
    assert_eq!(cached(&store, "al").await.expect("no error"), b"first");

    assert!(
        store
            .put_user("bo", b"", HOUR, IfUnchanged(None))
            .await
            .expect("no error")
    );
    assert!(
        !store
            .put_user("bo", b"second", HOUR, IfUnchanged(None))
            .await
            .expect("no error")
    );
    assert_eq!(cached(&store, "bo").await.expect("no error"), b"");
}

/// `IfUnchanged(Some)` writes only if the value has exactly these bytes.
pub async fn if_unchanged_compares_the_bytes(backend: &impl Backend) {
    let store = backend.store().await;
    // No bytes match an absent value, not even the empty ones.
    for seen in [&b""[..], b"x"] {
        assert!(
            !store
                .put_user("al", b"new", HOUR, IfUnchanged(Some(seen)))
                .await
                .expect("no error")
        );
        assert_eq!(cached(&store, "al").await, None);
    }
    for present in [&b"value"[..], b"", b"\0", b"\xff\xfe", b"1", b"a\r\nb"] {
        store
            .put_user("al", present, HOUR, Replace)
            .await
            .expect("no error");
        for seen in [
            &b"value"[..],
            b"",
            b"\0",
            b"\xff\xfe",
            b"1",
            b"a\r\nb",
            b"valu",
            b"VALUE",
            b"1.0",
            b"value ",
        ] {
            let written = store
                .put_user("al", present, HOUR, IfUnchanged(Some(seen)))
                .await
                .expect("no error");
            assert_eq!(written, seen == present, "{seen:?} {present:?}");
        }
        assert!(
            store
                .put_user("al", b"new", HOUR, IfUnchanged(Some(present)))
                .await
                .expect("no error")
        );
        assert_eq!(cached(&store, "al").await.expect("no error"), b"new");
    }
}

/// If the condition does not hold, neither value nor ttl changes.
pub async fn a_refused_put_changes_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    store
        .put_user("al", b"value", HOUR, Replace)
        .await
        .expect("no error");
    for mode in [IfUnchanged(None), IfUnchanged(Some(b"other"))] {
        assert!(
            !store
                .put_user("al", b"new", SHORT, mode)
                .await
                .expect("no error")
        );
    }
    outlive_short().await;
    assert_eq!(cached(&store, "al").await.expect("no error"), b"value");
}

/// Every put sets the ttl from now, whether that prolongs or shortens the life of the value.
pub async fn every_put_sets_the_ttl_anew(backend: &impl Backend) {
    let store = backend.store().await;
    let value = &b"value"[..];
    for (user_id, mode) in [("al", Replace), ("bo", IfUnchanged(Some(value)))] {
        store
            .put_user(user_id, value, HOUR, Replace)
            .await
            .expect("no error");
        assert!(
            store
                .put_user(user_id, value, SHORT, mode)
                .await
                .expect("no error")
        );
        outlive_short().await;
        assert_eq!(cached(&store, user_id).await, None);
    }
    // `IfUnchanged(None)` sets the ttl, too.
    assert!(
        store
            .put_user("cy", value, SHORT, IfUnchanged(None))
            .await
            .expect("no error")
    );
    outlive_short().await;
    assert_eq!(cached(&store, "cy").await, None);

    store
        .put_user("al", value, SHORT, Replace)
        .await
        .expect("no error");
    store
        .put_user("al", value, DAY, Replace)
        .await
        .expect("no error");
    outlive_short().await;
    assert_eq!(cached(&store, "al").await.expect("no error"), value);
}

/// A value of 100 kB of any bytes is returned unchanged, in all modes.
pub async fn values_are_opaque_and_may_be_large(backend: &impl Backend) {
    let store = backend.store().await;
    let large: Vec<u8> = (0..100_000_u32).map(|n| (n * 31 / 7) as u8).collect();
    let mut other = large.clone();
    other[99_999] ^= 1;
    assert!(
        store
            .put_user("al", &large, HOUR, IfUnchanged(None))
            .await
            .expect("no error")
    );
    assert_eq!(cached(&store, "al").await.expect("no error"), large);
    assert!(
        !store
            .put_user("al", b"x", HOUR, IfUnchanged(Some(&other)))
            .await
            .expect("no error")
    );
    assert!(
        store
            .put_user("al", &other, HOUR, IfUnchanged(Some(&large)))
            .await
            .expect("no error")
    );
    assert_eq!(cached(&store, "al").await.expect("no error"), other);
}

/// A value belongs to one user, and does not create a session.
pub async fn values_belong_to_their_user_and_need_no_session(backend: &impl Backend) {
    let store = backend.store().await;
    log_in(&store, "bo", &token_id(1)).await;
    store
        .put_user("al", b"al", HOUR, Replace)
        .await
        .expect("no error");
    assert_eq!(cached(&store, "bo").await, None);
    store
        .put_user("bo", b"bo", HOUR, Replace)
        .await
        .expect("no error");
    assert_eq!(cached(&store, "al").await.expect("no error"), b"al");
    assert_eq!(listed(&store, "al").await, []);
    assert_eq!(store.delete_all("al", None).await.expect("no error"), 0);
    assert_eq!(listed(&store, "bo").await, [token_id(1)]);
}

/// A write that is retried because its reply was lost leaves the same value.
pub async fn repeated_puts_leave_what_one_leaves(backend: &impl Backend) {
    let store = backend.store().await;
    for mode in [IfUnchanged(None), IfUnchanged(Some(b"new")), Replace] {
        for _ in 0..2 {
            store
                .put_user("al", b"new", HOUR, mode)
                .await
                .expect("no error");
            assert_eq!(cached(&store, "al").await.expect("no error"), b"new");
        }
    }
    for _ in 0..2 {
        let mode = IfUnchanged(Some(b"new"));
        store
            .put_user("al", b"newer", HOUR, mode)
            .await
            .expect("no error");
        assert_eq!(cached(&store, "al").await.expect("no error"), b"newer");
    }
}

async fn cached(store: &impl SessionStore, user_id: &str) -> Option<Vec<u8>> {
    store
        .get_user(user_id)
        .await
        .expect("no error")
        .map(Into::into)
}
