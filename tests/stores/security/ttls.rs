//! CVE-2024-35220: nothing lives for ever, nor past its absolute end, and a lifetime of zero is an error.

use std::time::Duration;

use ::redis::Value;
use tower_bearer_session::{ErrorKind, TokenManager, TokenOptions, store::MAX_TTL};

use super::counting_manager;
use crate::stores::{Backend, DAY, HOUR, Server, on_every_store};

on_every_store!(
    no_token_outlives_its_absolute_end,
    impossible_durations_are_refused;
    servers:
    every_key_expires_with_what_is_in_it,
    no_key_outlives_the_absolute_end,
    impossible_durations_leave_no_key,
);

/// However often it is refreshed, and whatever the refresh asks for.
async fn no_token_outlives_its_absolute_end(backend: &impl Backend) {
    let (manager, _) = counting_manager(backend).await;
    let options = TokenOptions::new().ttl(30 * DAY).max_lifetime(HOUR);
    let issued = manager.set_token_with("al", options).await.unwrap();
    for ttl in [None, Some(DAY), Some(MAX_TTL), Some(HOUR)] {
        let token = issued.token.expose_secret();
        let user = manager.check_token(token).await.unwrap().unwrap();
        let remaining = user.token_remaining().unwrap();
        assert!(!remaining.is_zero() && remaining <= HOUR);
        assert_eq!(user.token_expires_at(), Some(issued.expires_at));
        assert!(manager.refresh_token(token, ttl).await.unwrap());
    }
    let list = manager.list_user_tokens("al").await.unwrap();
    assert_eq!(list[0].expires_at(), issued.expires_at);
    assert_eq!(list[0].ends_at(), Some(issued.expires_at));
}

/// Zero and more than a century are errors, and change nothing.
async fn impossible_durations_are_refused(backend: &impl Backend) {
    let (manager, _) = counting_manager(backend).await;
    let token = manager.set_token("al", HOUR).await.unwrap();
    let before = manager.list_user_tokens("al").await.unwrap();
    refuse_impossible_durations(&manager, token.expose_secret()).await;
    assert_eq!(manager.list_user_tokens("al").await.unwrap(), before);
}

/// After each thing that writes, every key has a ttl, which is at most that of the longest-lived thing in it.
async fn every_key_expires_with_what_is_in_it(backend: &impl Server) {
    let (manager, _) = counting_manager(backend).await;
    let one = manager.set_token("al", 2 * HOUR).await.unwrap();
    assert_ttls(backend, 1, HOUR, 2 * HOUR).await;
    let other = manager.set_token("al", HOUR).await.unwrap();
    assert_ttls(backend, 1, HOUR, 2 * HOUR).await;
    manager
        .refresh_token(other.expose_secret(), DAY)
        .await
        .unwrap();
    assert_ttls(backend, 1, DAY - HOUR, DAY).await;
    manager
        .delete_other_user_tokens("al", one.id())
        .await
        .unwrap();
    assert_ttls(backend, 1, HOUR, 2 * HOUR).await;

    let check = manager.check_token_or_update_user(one.expose_secret(), HOUR + HOUR / 2);
    check.await.unwrap().unwrap();
    assert_ttls(backend, 2, HOUR, 2 * HOUR).await;
    manager.add_user("al", 2 * HOUR).await.unwrap();
    assert_ttls(backend, 2, HOUR, 2 * HOUR).await;
    manager.delete_user("al").await.unwrap();
    assert_ttls(backend, 2, Duration::ZERO, 2 * HOUR).await;
}

/// The key of a user whose sessions all have an end goes with the last of them.
async fn no_key_outlives_the_absolute_end(backend: &impl Server) {
    let (manager, _) = counting_manager(backend).await;
    for max_lifetime in [HOUR, 2 * HOUR] {
        let options = TokenOptions::new().ttl(MAX_TTL).max_lifetime(max_lifetime);
        let issued = manager.set_token_with("al", options).await.unwrap();
        assert_ttls(backend, 1, max_lifetime / 2, max_lifetime).await;
        assert!(
            manager
                .refresh_token(issued.token.expose_secret(), DAY)
                .await
                .unwrap()
        );
        assert_ttls(backend, 1, max_lifetime / 2, max_lifetime).await;
    }
}

/// A refused duration has written nothing before it was refused.
async fn impossible_durations_leave_no_key(backend: &impl Server) {
    let (manager, _) = counting_manager(backend).await;
    refuse_impossible_durations(&manager, "").await;
    assert_ttls(backend, 0, Duration::ZERO, Duration::ZERO).await;
}

async fn refuse_impossible_durations(manager: &TokenManager<String>, token: &str) {
    for bad in [
        Duration::ZERO,
        MAX_TTL + Duration::from_nanos(1),
        Duration::MAX,
    ] {
        let options = TokenOptions::new;
        let errors = [
            manager.set_token("al", bad).await.map(drop).unwrap_err(),
            manager
                .set_token_with("al", options().ttl(bad))
                .await
                .map(drop)
                .unwrap_err(),
            manager
                .set_token_with("al", options().max_lifetime(bad))
                .await
                .map(drop)
                .unwrap_err(),
            manager
                .refresh_token(token, bad)
                .await
                .map(drop)
                .unwrap_err(),
            manager
                .check_token_or_update_user(token, bad)
                .await
                .map(drop)
                .unwrap_err(),
            manager.add_user("al", bad).await.map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(manager.refresh_users(["al"], bad).await.failed.len(), 1);
    }
}

/// There are so many keys, and each has a ttl in `above..=most`.
async fn assert_ttls(backend: &impl Server, number: usize, above: Duration, most: Duration) {
    let server = backend.server();
    let Value::Array(keys) = server.cmd(&["KEYS", "*"]).await else {
        panic!("not keys");
    };
    assert_eq!(keys.len(), number);
    for key in keys {
        let Value::BulkString(key) = key else {
            panic!("not a key");
        };
        let key = String::from_utf8(key).unwrap();
        // -1 would be: never.
        let Value::Int(ttl) = server.cmd(&["PTTL", &key]).await else {
            panic!("not a ttl");
        };
        let ttl = Duration::from_millis(u64::try_from(ttl).expect("an expiry"));
        assert!(above < ttl && ttl <= most, "{key}: {ttl:?}");
    }
}
