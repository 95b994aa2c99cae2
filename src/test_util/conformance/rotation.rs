//! Tests of updates that replace the token of a session.

use std::time::Duration;

use bytes::Bytes;

use super::helpers::{
    DAY, HOUR, SHORT, is_live, limit, listed, live, live_session, log_in, log_in_apart,
    outlive_short, replacement, session, tick, token_id,
};
use crate::{
    OnFull, SessionStore, TokenId,
    store::{ReplacedToken, Rotation, SessionChange, SessionRecord, TokenStatus, Updated},
    test_util::Backend,
};

/// A new token becomes the current one, the old one is kept with the end of its grace, and nothing else changes.
pub async fn a_new_token_replaces_the_current_one(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut new = session(HOUR);
    new.max_lifetime = Some(30 * DAY);
    new.metadata = Some(Bytes::from_static(b"{}"));
    let created = store.create("al", &id, &new, None).await;
    let mut expected = created.expect("no error").session;
    assert_eq!(expected.current_token(&id), &id);
    let mut tokens = vec![id];
    for n in 2..5 {
        tick().await;
        let (old, new) = (tokens[tokens.len() - 1], token_id(n));
        let before = live(&store, "al", &id).await.now;
        let updated = store.update("al", &id, &replacement(old, new, HOUR)).await;
        let updated = updated.expect("no error").expect("the session is live");
        assert_eq!(updated, Updated::new(expected.expires_at, 0));
        let checked = live(&store, "al", &id).await;
        let replaced = latest_replaced(&checked.session);
        assert_eq!(replaced.token_id, old);
        // Stores round times down to milliseconds.
        let earliest = before + HOUR - Duration::from_millis(1);
        assert!((earliest..=checked.now + HOUR).contains(&replaced.usable_until));
        let rotation = expected
            .rotation
            .get_or_insert_with(|| Box::new(Rotation::of(id)));
        rotation.current = new;
        rotation.replaced.insert(0, replaced);
        assert_eq!(*checked.session, expected);
        let list = store.list("al").await.expect("no error");
        assert_eq!(list, [(id, expected.clone())]);
        tokens.push(new);
    }
    // The ids of its tokens are not those of sessions.
    for token in &tokens[1..] {
        assert!(!is_live(&store, "al", token).await);
    }
}

/// A replacement can refresh the session and change its metadata in the same step.
pub async fn a_replacement_changes_the_rest_in_the_same_step(backend: &impl Backend) {
    let store = backend.store().await;
    let ids = [1, 2, 3].map(token_id);
    log_in_apart(&store, "al", &ids).await;
    let mut change = replacement(ids[1], token_id(9), Duration::ZERO);
    change.ttl = Some(DAY);
    change.metadata = Some(Bytes::from_static(b"new"));
    change.authenticated = true;
    change.end_others = true;
    let updated = store.update("al", &ids[1], &change).await;
    let updated = updated.expect("no error").expect("the session is live");
    let session = live_session(&store, "al", &ids[1]).await;
    assert_eq!(session.current_token(&ids[1]), &token_id(9));
    assert_eq!(session.expires_at, session.refreshed_at + DAY);
    assert_eq!(session.authenticated_at, session.refreshed_at);
    assert!(session.created_at < session.refreshed_at);
    assert_eq!(session.metadata.as_deref(), Some(&b"new"[..]));
    assert_eq!(updated, Updated::new(session.expires_at, 2));
    assert_eq!(listed(&store, "al").await, [ids[1]]);
}

/// The replaced token is usable for its grace, and then counts as reused; a token that the session never had is
/// unknown.
pub async fn a_replaced_token_can_be_used_for_its_grace(backend: &impl Backend) {
    let store = backend.store().await;
    let [id, second, third] = [1, 2, 3].map(token_id);
    log_in(&store, "al", &id).await;
    let status = async |token: &TokenId| {
        let checked = live(&store, "al", &id).await;
        checked.session.token_status(&id, token, checked.now)
    };
    assert_eq!(status(&id).await, TokenStatus::Current);
    assert_eq!(status(&second).await, TokenStatus::Unknown);
    replace(&store, &id, id, second, HOUR).await;
    assert_eq!(status(&id).await, TokenStatus::InGrace);
    replace(&store, &id, second, third, SHORT).await;
    outlive_short().await;
    assert_eq!(status(&third).await, TokenStatus::Current);
    assert_eq!(status(&second).await, TokenStatus::Reused);
    // Each token has its own grace.
    assert_eq!(status(&id).await, TokenStatus::InGrace);
    replace(&store, &id, third, token_id(4), Duration::ZERO).await;
    assert_eq!(status(&third).await, TokenStatus::Reused);
}

/// An update on condition of a token that is not the current one changes nothing.
pub async fn an_update_of_another_token_changes_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    let [id, second] = [1, 2].map(token_id);
    log_in(&store, "al", &id).await;
    replace(&store, &id, id, second, HOUR).await;
    let before = live_session(&store, "al", &id).await;
    for other in [id, token_id(3)] {
        let mut refresh = SessionChange::refresh(DAY);
        refresh.if_token = Some(other);
        for change in [refresh, replacement(other, token_id(4), HOUR)] {
            let updated = store.update("al", &id, &change).await;
            assert_eq!(updated.expect("no error"), None, "{change:?}");
            assert_eq!(live_session(&store, "al", &id).await, before);
        }
    }
    let mut refresh = SessionChange::refresh(DAY);
    refresh.if_token = Some(second);
    let updated = store.update("al", &id, &refresh).await;
    assert!(updated.expect("no error").is_some());
    // All conditions have to hold.
    refresh.if_version = Some(before.version());
    let updated = store.update("al", &id, &refresh).await;
    assert_eq!(updated.expect("no error"), None);
}

/// Repeating a replacement succeeds and changes nothing more.
pub async fn repeating_a_replacement_changes_nothing(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    let mut change = replacement(id, token_id(2), HOUR);
    change.ttl = Some(DAY);
    let first = store.update("al", &id, &change).await.expect("no error");
    let before = live_session(&store, "al", &id).await;
    tick().await;
    let repeated = store.update("al", &id, &change).await.expect("no error");
    assert_eq!(
        (first, repeated),
        (repeated, Some(Updated::new(before.expires_at, 0)))
    );
    assert_eq!(live_session(&store, "al", &id).await, before);
}

/// A session keeps its 16 latest replaced tokens.
pub async fn the_latest_replaced_tokens_are_kept(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(0);
    log_in(&store, "al", &id).await;
    for n in 0..20 {
        replace(&store, &id, token_id(n), token_id(n + 1), HOUR).await;
    }
    let session = live_session(&store, "al", &id).await;
    let rotation = session.rotation.expect("the token was replaced");
    assert_eq!(rotation.current, token_id(20));
    let replaced: Vec<_> = rotation
        .replaced
        .iter()
        .map(|token| token.token_id)
        .collect();
    let expected: Vec<_> = (4..20).rev().map(token_id).collect();
    assert_eq!(replaced, expected);
    // A change of the rest keeps them.
    let refresh = SessionChange::refresh(DAY);
    store.update("al", &id, &refresh).await.expect("no error");
    assert_eq!(
        live_session(&store, "al", &id).await.rotation,
        Some(rotation)
    );
    let statuses = [0, 1, 4].map(token_id);
    let checked = live(&store, "al", &id).await;
    let statuses = statuses.map(|token| checked.session.token_status(&id, &token, checked.now));
    // The first token is never forgotten: the session has its id.
    let expected = [
        TokenStatus::Reused,
        TokenStatus::Unknown,
        TokenStatus::InGrace,
    ];
    assert_eq!(statuses, expected);
}

/// A replacement is undone by one in the other direction; then the token can be replaced again.
pub async fn a_replacement_can_be_undone(backend: &impl Backend) {
    let store = backend.store().await;
    let [id, second, third, fourth] = [1, 2, 3, 4].map(token_id);
    log_in(&store, "al", &id).await;
    replace(&store, &id, id, second, Duration::ZERO).await;
    replace(&store, &id, second, third, HOUR).await;
    replace(&store, &id, third, second, Duration::ZERO).await;
    let status = async |token: &TokenId| {
        let checked = live(&store, "al", &id).await;
        checked.session.token_status(&id, token, checked.now)
    };
    assert_eq!(status(&second).await, TokenStatus::Current);
    assert_eq!(status(&third).await, TokenStatus::Reused);
    replace(&store, &id, second, fourth, HOUR).await;
    assert_eq!(status(&second).await, TokenStatus::InGrace);
    assert_eq!(status(&fourth).await, TokenStatus::Current);
}

/// Replaced tokens do not count for the limit, and a session with a new token is as old as before.
pub async fn replaced_tokens_count_for_no_limit(backend: &impl Backend) {
    let store = backend.store().await;
    let ids = [1, 2, 3].map(token_id);
    log_in_apart(&store, "al", &ids).await;
    for n in 0..5 {
        let old = if n == 0 { ids[0] } else { token_id(100 + n) };
        replace(&store, &ids[0], old, token_id(101 + n), HOUR).await;
    }
    let full = limit(4, OnFull::Reject);
    let created = store.create("al", &token_id(4), &session(HOUR), full).await;
    assert_eq!(created.expect("no error").evicted, []);
    let before = live_session(&store, "al", &ids[0]).await;
    let oldest = limit(4, OnFull::EvictOldest);
    let created = store
        .create("al", &token_id(5), &session(HOUR), oldest)
        .await;
    assert_eq!(created.expect("no error").evicted, [(ids[0], before)]);
}

/// A session that was ended and created anew has only its first token.
pub async fn a_session_begins_with_its_first_token(backend: &impl Backend) {
    let store = backend.store().await;
    let ids = [1, 2, 3].map(token_id);
    for id in ids {
        log_in(&store, "al", &id).await;
        let mut change = replacement(id, token_id(9), HOUR);
        change.ttl = (id == ids[2]).then_some(SHORT);
        store.update("al", &id, &change).await.expect("no error");
    }
    assert!(store.delete("al", &ids[0]).await.expect("no error"));
    store
        .delete_all("al", Some(&ids[2]))
        .await
        .expect("no error");
    outlive_short().await;
    for id in ids {
        assert!(!is_live(&store, "al", &id).await);
        let created = log_in(&store, "al", &id).await;
        assert_eq!(created.rotation, None);
        assert_eq!(live_session(&store, "al", &id).await, created);
    }
}

/// A replacement never moves the expiry past the absolute end.
pub async fn a_replacement_never_passes_the_absolute_end(backend: &impl Backend) {
    let store = backend.store().await;
    let id = token_id(1);
    let mut new = session(HOUR);
    new.max_lifetime = Some(2 * HOUR);
    let created = store.create("al", &id, &new, None).await;
    let created = created.expect("no error").session;
    let mut change = replacement(id, token_id(2), HOUR);
    change.ttl = Some(DAY);
    store.update("al", &id, &change).await.expect("no error");
    let session = live_session(&store, "al", &id).await;
    assert_eq!(session.ends_at, created.ends_at);
    assert_eq!(Some(session.expires_at), created.ends_at);
}

async fn replace(
    store: &impl SessionStore,
    session_id: &TokenId,
    old: TokenId,
    new: TokenId,
    grace: Duration,
) {
    let change = replacement(old, new, grace);
    let updated = store.update("al", session_id, &change).await;
    updated.expect("no error").expect("the token is current");
}

fn latest_replaced(session: &SessionRecord) -> ReplacedToken {
    let rotation = session.rotation.as_ref().expect("the token was replaced");
    rotation.replaced[0]
}
