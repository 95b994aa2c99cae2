//! Tests of `update` with a condition, and of `ping`; `refresh` is an `update` without a condition.

use super::helpers::{
    DAY, HOUR, SHORT, is_live, listed, live, log_in, outlive_short, session, tick, token_id,
};
use crate::{
    SessionStore,
    store::{SessionChange, SessionVersion},
    test_util::Backend,
};

/// An update of an old version, or of one that the session never had, changes nothing.
pub async fn an_update_of_another_version_changes_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let old = log_in(&store, "al", &id).await.version();
    tick().await;
    assert!(store.refresh("al", &id, 2 * HOUR).await.expect("no error"));
    let before = live(&store, "al", &id).await.session;
    let current = before.version();
    assert_ne!(old, current);
    let mixed = [
        SessionVersion {
            refreshed_at: current.refreshed_at,
            expires_at: old.expires_at,
        },
        SessionVersion {
            refreshed_at: old.refreshed_at,
            expires_at: current.expires_at,
        },
    ];
    for version in mixed.into_iter().chain([old]) {
        let updated = store.update("al", &id, &change(version)).await;
        assert!(!updated.expect("no error"), "{version:?}");
        assert_eq!(live(&store, "al", &id).await.session, before);
    }
}

/// An update of the current version changes the expiry only, and with it the version.
pub async fn an_update_of_the_current_version_works_once(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let created = log_in(&store, "al", &id).await;
    tick().await;
    let conditional = change(created.version());
    assert!(
        store
            .update("al", &id, &conditional)
            .await
            .expect("no error")
    );
    let updated = live(&store, "al", &id).await.session;
    assert!(created.refreshed_at < updated.refreshed_at);
    let mut expected = created.clone();
    expected.refreshed_at = updated.refreshed_at;
    expected.expires_at = updated.refreshed_at + DAY;
    assert_eq!(updated, expected);
    assert!(
        !store
            .update("al", &id, &conditional)
            .await
            .expect("no error")
    );
    assert_eq!(live(&store, "al", &id).await.session, updated);
}

/// An update with the last version of an ended session does not bring it back.
pub async fn a_conditional_update_never_brings_a_session_back(backend: &impl Backend) {
    let store = backend.store().await;
    let [deleted, swept, expired, unknown] = [1, 2, 3, 4].map(token_id);
    let mut versions = Vec::new();
    for (id, ttl) in [(deleted, HOUR), (swept, HOUR), (expired, SHORT)] {
        let created = store.create("al", &id, &session(ttl), None).await;
        versions.push((id, created.expect("no error").session.version()));
    }
    versions.push((unknown, versions[0].1));
    assert!(store.delete("al", &deleted).await.expect("no error"));
    outlive_short().await;
    store.delete_all("al", None).await.expect("no error");
    for (id, version) in versions {
        let updated = store.update("al", &id, &change(version)).await;
        assert!(!updated.expect("no error"));
        assert!(!is_live(&store, "al", &id).await);
    }
    assert_eq!(listed(&store, "al").await, []);
}

/// `ping` succeeds with and without sessions.
pub async fn a_store_that_works_says_so(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..3 {
        store.ping().await.expect("a store that can serve");
        log_in(&store, "al", &token_id(n)).await;
    }
    assert_eq!(listed(&store, "al").await.len(), 3);
}

/// A refresh for a day, on condition of this version.
fn change(version: SessionVersion) -> SessionChange {
    let mut change = SessionChange::refresh(DAY);
    change.if_version = Some(version);
    change
}
