//! Tests of updates with the largest values and the longest durations.

use std::time::Duration;

use bytes::Bytes;

use super::helpers::{
    DAY, HOUR, listed, live, live_session, log_in, replacement, session, tick, token_id,
};
use crate::{
    SessionStore,
    store::{MAX_TTL, MAX_VALUE_LEN, Rotation, TokenStatus},
    test_util::Backend,
};

/// A session with the largest metadata and as many replaced tokens as are kept works like any other.
pub async fn the_largest_session_gets_another_token(backend: &impl Backend) {
    let store = backend.store().await;
    let metadata = |seed: u8| {
        let bytes = (0..MAX_VALUE_LEN).map(|n| seed.wrapping_add((n % 251) as u8));
        Bytes::from_iter(bytes)
    };
    let (id, other) = (token_id(0), token_id(1000));
    log_in(&store, "al", &other).await;
    let mut new = session(HOUR);
    new.metadata = Some(metadata(0));
    let created = store.create("al", &id, &new, None).await;
    let mut expected = created.expect("no error").session;
    let replacements = Rotation::MAX_REPLACED as u128 + 3;
    for n in 0..replacements {
        let mut change = replacement(token_id(n), token_id(n + 1), HOUR);
        let is_last = n + 1 == replacements;
        if is_last {
            // All at once.
            change.metadata = Some(metadata(7));
            change.ttl = Some(DAY);
            change.end_others = true;
        }
        let updated = store.update("al", &id, &change).await;
        let updated = updated.expect("no error").expect("the token is current");
        assert_eq!(updated.ended, u64::from(is_last));
    }
    let session = live_session(&store, "al", &id).await;
    let rotation = session.rotation.as_ref().expect("a rotation");
    assert_eq!(rotation.current, token_id(replacements));
    let replaced = rotation.replaced.iter().map(|token| token.token_id);
    let latest = (0..replacements).rev().take(Rotation::MAX_REPLACED);
    assert!(replaced.eq(latest.map(token_id)));
    expected.metadata = Some(metadata(7));
    expected.refreshed_at = session.refreshed_at;
    expected.expires_at = session.refreshed_at + DAY;
    expected.rotation.clone_from(&session.rotation);
    assert!(session == expected, "not the session as it was changed");
    assert_eq!(listed(&store, "al").await, [id]);
    assert!(store.list("al").await.expect("no error") == [(id, expected)]);
    assert!(store.delete("al", &id).await.expect("no error"));
}

/// A replaced token can be used for as long as a session can live.
pub async fn the_longest_grace_and_ttl_work(backend: &impl Backend) {
    let store = backend.store().await;
    let [id, second, third] = [1, 2, 3].map(token_id);
    let mut new = session(MAX_TTL);
    new.max_lifetime = Some(MAX_TTL);
    let created = store.create("al", &id, &new, None).await;
    let created = created.expect("no error").session;
    let shortest = Duration::from_millis(1);
    for (old, new, grace) in [(id, second, MAX_TTL), (second, third, shortest)] {
        let mut change = replacement(old, new, grace);
        change.ttl = Some(MAX_TTL);
        let updated = store.update("al", &id, &change).await;
        let updated = updated.expect("no error").expect("the token is current");
        let session = live_session(&store, "al", &id).await;
        // The absolute end came first.
        assert_eq!(Some(session.expires_at), created.ends_at);
        assert_eq!(updated.expires_at, session.expires_at);
        let rotation = session.rotation.expect("the token was replaced");
        let usable_until = rotation.replaced[0].usable_until;
        assert_eq!(usable_until, session.refreshed_at + grace);
    }
    tick().await;
    let checked = live(&store, "al", &id).await;
    let statuses = [id, second, third];
    let statuses = statuses.map(|token| checked.session.token_status(&id, &token, checked.now));
    let expected = [
        TokenStatus::InGrace,
        TokenStatus::Reused,
        TokenStatus::Current,
    ];
    assert_eq!(statuses, expected);

    // Without an absolute end, the session itself lives as long.
    log_in(&store, "bo", &id).await;
    let mut change = replacement(id, second, MAX_TTL);
    change.ttl = Some(MAX_TTL);
    let updated = store.update("bo", &id, &change).await;
    let updated = updated.expect("no error").expect("the token is current");
    let session = live_session(&store, "bo", &id).await;
    assert_eq!(session.expires_at, session.refreshed_at + MAX_TTL);
    assert_eq!(updated.expires_at, session.expires_at);
}
