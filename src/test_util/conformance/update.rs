//! Tests of `update`, and of `ping`; `refresh` is an `update` without a condition.

use bytes::Bytes;

use super::helpers::{
    DAY, HOUR, SHORT, is_live, listed, live, live_session, log_in, log_in_apart, outlive_short,
    replacement, session, tick, token_id,
};
use crate::{
    SessionStore,
    store::{SessionChange, SessionVersion, Updated},
    test_util::Backend,
};

/// An update of an old version, or of one that the session never had, changes nothing.
pub async fn an_update_of_another_version_changes_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let old = log_in(&store, "al", &id).await.version();
    tick().await;
    assert!(store.refresh("al", &id, 2 * HOUR).await.expect("no error"));
    let before = live_session(&store, "al", &id).await;
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
        assert_eq!(updated.expect("no error"), None, "{version:?}");
        assert_eq!(live_session(&store, "al", &id).await, before);
    }
}

/// An update of the current version changes the expiry only, and with it the version.
pub async fn an_update_of_the_current_version_works_once(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let created = log_in(&store, "al", &id).await;
    tick().await;
    let conditional = change(created.version());
    let done = store.update("al", &id, &conditional).await;
    let done = done.expect("no error").expect("the version is current");
    let updated = live_session(&store, "al", &id).await;
    assert!(created.refreshed_at < updated.refreshed_at);
    let mut expected = created.clone();
    expected.refreshed_at = updated.refreshed_at;
    expected.expires_at = updated.refreshed_at + DAY;
    assert_eq!(updated, expected);
    assert_eq!(done, Updated::new(expected.expires_at, 0));
    let again = store.update("al", &id, &conditional).await;
    assert_eq!(again.expect("no error"), None);
    assert_eq!(live_session(&store, "al", &id).await, updated);
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
        assert_eq!(updated.expect("no error"), None);
        assert!(!is_live(&store, "al", &id).await);
    }
    assert_eq!(listed(&store, "al").await, []);
}

/// An update changes what it names, each alone and all together, and nothing else.
pub async fn an_update_changes_what_it_names_and_nothing_else(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut new = session(HOUR);
    new.max_lifetime = Some(30 * DAY);
    new.metadata = Some(Bytes::from_static(b"first\0"));
    let created = store.create("al", &id, &new, None).await;
    let mut expected = created.expect("no error").session;
    assert_eq!(expected.authenticated_at, expected.created_at);
    let metadata = |bytes: &'static [u8]| SessionChange {
        metadata: Some(Bytes::from_static(bytes)),
        ..SessionChange::default()
    };
    let authenticated = SessionChange {
        authenticated: true,
        ..SessionChange::default()
    };
    let all = SessionChange {
        authenticated: true,
        ..SessionChange {
            ttl: Some(DAY),
            ..metadata(b"\xFFlast")
        }
    };
    let changes = [
        SessionChange::default(),
        metadata(b"second"),
        SessionChange::refresh(2 * HOUR),
        authenticated,
        metadata(b""),
        SessionChange::refresh(3 * HOUR),
        all,
        SessionChange::default(),
    ];
    for change in changes {
        tick().await;
        let updated = store.update("al", &id, &change).await.expect("no error");
        let checked = live(&store, "al", &id).await;
        let found = &checked.session;
        if let Some(ttl) = change.ttl {
            assert!(expected.refreshed_at < found.refreshed_at, "{change:?}");
            expected.refreshed_at = found.refreshed_at;
            expected.expires_at = found.refreshed_at + ttl;
        }
        if let Some(metadata) = &change.metadata {
            expected.metadata = (!metadata.is_empty()).then(|| metadata.clone());
        }
        if change.authenticated {
            assert!(expected.authenticated_at < found.authenticated_at);
            expected.authenticated_at = found.authenticated_at;
        }
        assert!(found.refreshed_at.max(found.authenticated_at) <= checked.now);
        assert_eq!(**found, expected, "{change:?}");
        assert_eq!(updated, Some(Updated::new(expected.expires_at, 0)));
        let list = store.list("al").await.expect("no error");
        assert_eq!(list, [(id, expected.clone())]);
    }
}

/// An update on condition of other metadata changes nothing; on condition of the current one, it works once.
pub async fn an_update_on_condition_of_the_metadata_works_once(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    let values = [&b""[..], b"\0first", b"second\xFF", b""].map(Bytes::from_static);
    for pair in values.windows(2) {
        let [old, new] = pair else {
            unreachable!("two of them")
        };
        let change = |of: &Bytes| SessionChange {
            metadata: Some(new.clone()),
            if_metadata: Some(of.clone()),
            ..SessionChange::refresh(DAY)
        };
        let before = live_session(&store, "al", &id).await;
        for other in values.iter().filter(|other| *other != old) {
            let refused = store.update("al", &id, &change(other)).await;
            assert_eq!(refused.expect("no error"), None, "{other:?}");
            assert_eq!(live_session(&store, "al", &id).await, before);
        }
        let done = store.update("al", &id, &change(old)).await;
        assert!(done.expect("no error").is_some(), "{old:?}");
        let after = live_session(&store, "al", &id).await;
        assert_eq!(after.metadata.unwrap_or_default(), *new);
        let again = store.update("al", &id, &change(old)).await;
        assert_eq!(again.expect("no error"), None);
    }
}

/// An update of a session that is not live changes nothing and creates nothing.
pub async fn an_update_creates_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    let [deleted, expired, unknown] = [1, 2, 3].map(token_id);
    log_in(&store, "al", &deleted).await;
    let created = store.create("al", &expired, &session(SHORT), None).await;
    created.expect("no error");
    assert!(store.delete("al", &deleted).await.expect("no error"));
    outlive_short().await;
    for id in [deleted, expired, unknown] {
        let mut change = replacement(id, token_id(9), HOUR);
        for _ in 0..2 {
            change.ttl = Some(HOUR);
            change.metadata = Some(Bytes::from_static(b"{}"));
            let updated = store.update("al", &id, &change).await;
            assert_eq!(updated.expect("no error"), None);
            change.if_token = None;
        }
        assert!(!is_live(&store, "al", &id).await);
        assert!(!is_live(&store, "al", &token_id(9)).await);
    }
    assert_eq!(listed(&store, "al").await, []);
}

/// An update that ends the other sessions of the user leaves only its own, and those of other users.
pub async fn an_update_can_end_the_other_sessions(backend: &impl Backend) {
    let store = backend.store().await;
    let ids = [1, 2, 3, 4].map(token_id);
    log_in_apart(&store, "al", &ids).await;
    log_in(&store, "bo", &ids[0]).await;
    let mut change = SessionChange::refresh(DAY);
    change.end_others = true;
    let updated = store.update("al", &ids[2], &change).await;
    let updated = updated.expect("no error").expect("the session is live");
    assert_eq!(updated.ended, 3);
    assert_eq!(listed(&store, "al").await, [ids[2]]);
    let session = live_session(&store, "al", &ids[2]).await;
    assert_eq!(session.expires_at, session.refreshed_at + DAY);
    assert_eq!(updated.expires_at, session.expires_at);
    assert!(is_live(&store, "bo", &ids[0]).await);

    // Without the session itself, or if a condition does not hold, they stay.
    log_in_apart(&store, "al", &ids[..2]).await;
    let refused = store.update("al", &ids[3], &change).await;
    assert_eq!(refused.expect("no error"), None);
    change.if_token = Some(ids[0]);
    let refused = store.update("al", &ids[2], &change).await;
    assert_eq!(refused.expect("no error"), None);
    assert_eq!(listed(&store, "al").await.len(), 3);
}

/// With thousands of sessions, some of them expired, an update ends all others and keeps its own.
pub async fn an_update_can_end_thousands_of_sessions(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..2000 {
        let ttl = if n % 20 == 0 { SHORT } else { HOUR };
        let created = store.create("al", &token_id(n), &session(ttl), None).await;
        created.expect("no error");
    }
    outlive_short().await;
    let [kept, new] = [1234, 5000].map(token_id);
    let mut change = replacement(kept, new, HOUR);
    change.end_others = true;
    let updated = store.update("al", &kept, &change).await;
    let updated = updated.expect("no error").expect("the session is live");
    assert!((1899..=1999).contains(&updated.ended), "{updated:?}");
    assert_eq!(listed(&store, "al").await, [kept]);
    let session = live_session(&store, "al", &kept).await;
    assert_eq!(session.current_token(&kept), &new);

    // Sessions after it live, until another update ends them.
    log_in(&store, "al", &token_id(1)).await;
    assert!(is_live(&store, "al", &token_id(1)).await);
    let change = SessionChange {
        end_others: true,
        ..SessionChange::default()
    };
    let updated = store.update("al", &kept, &change).await;
    assert!(updated.expect("no error").is_some());
    assert_eq!(listed(&store, "al").await, [kept]);
    assert_eq!(live_session(&store, "al", &kept).await, session);
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
