use std::time::Duration;

use tower_bearer_session::{
    OnFull, SessionStore,
    store::{MAX_TTL, PutMode},
};

use super::{ask, millis};
use crate::stores::{
    DAY, HOUR, SHORT, Server, is_live, limit, live, live_session, log_in, on_every_server,
    outlive_short, session, token_id,
};

on_every_server!(
    the_hash_lives_until_its_last_session_expires,
    a_refresh_moves_the_end_of_the_hash,
    keeping_one_session_keeps_its_time,
    nothing_is_left_when_all_has_expired,
    a_session_lives_exactly_until_it_expires,
    the_longest_time_to_live_works,
    short_logins_do_not_fill_the_hash,
    a_limit_bounds_the_hash,
);

const KEY: &str = "tbs:tokens:{al}";

/// The key expires when the last session in it does, to the millisecond.
async fn the_hash_lives_until_its_last_session_expires(backend: &impl Server) {
    let store = backend.store().await;
    let mut latest = 0;
    for (number, ttl) in (0..).zip([HOUR, 3 * HOUR, 2 * HOUR, DAY, HOUR]) {
        let created = store
            .create("al", &token_id(number), &session(ttl), None)
            .await;
        latest = latest.max(millis(created.unwrap().session.expires_at));
        assert_eq!(end(backend).await, latest);
    }
    // The absolute end counts, not what the ttl says.
    let mut new = session(9 * DAY);
    new.max_lifetime = Some(2 * DAY);
    let created = store.create("al", &token_id(9), &new, None).await.unwrap();
    assert_eq!(end(backend).await, millis(created.session.expires_at));
    assert_eq!(Some(created.session.expires_at), created.session.ends_at);
}

/// A refresh to later makes the key live longer; one to sooner never takes time from the others.
async fn a_refresh_moves_the_end_of_the_hash(backend: &impl Server) {
    let (store, id, other) = (backend.store().await, token_id(1), token_id(2));
    log_in(&store, "al", &id).await;
    let long = log_in(&store, "al", &other).await;
    assert!(store.refresh("al", &id, DAY).await.unwrap());
    let refreshed = live_session(&store, "al", &id).await;
    assert_eq!(end(backend).await, millis(refreshed.expires_at));
    assert!(store.refresh("al", &id, HOUR / 2).await.unwrap());
    let refreshed = live_session(&store, "al", &id).await;
    assert!(refreshed.expires_at < long.expires_at);
    assert!(end(backend).await >= millis(long.expires_at));
}

/// Logging out the others leaves the one session, and the key, with the time that it had.
async fn keeping_one_session_keeps_its_time(backend: &impl Server) {
    let store = backend.store().await;
    let kept = log_in(&store, "al", &token_id(1)).await;
    let long = session(DAY);
    store.create("al", &token_id(2), &long, None).await.unwrap();
    store.delete_all("al", Some(&token_id(1))).await.unwrap();
    let found = live_session(&store, "al", &token_id(1)).await;
    assert_eq!(found, kept);
    assert!(end(backend).await >= millis(kept.expires_at));
}

/// Redis itself frees what nobody asks for any more: no key of the user is left.
async fn nothing_is_left_when_all_has_expired(backend: &impl Server) {
    let store = backend.store().await;
    for number in 0..20 {
        let new = session(SHORT);
        store
            .create("al", &token_id(number), &new, None)
            .await
            .unwrap();
    }
    let put = store.put_user("al", b"{}", SHORT, PutMode::Replace).await;
    assert!(put.unwrap());
    outlive_short().await;
    let keys: Vec<String> = ask(backend.server(), &["KEYS", "*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
}

/// While a session is checked again and again until it ends, no answer contradicts the server's clock.
async fn a_session_lives_exactly_until_it_expires(backend: &impl Server) {
    let store = backend.store().await;
    let new = session(4 * SHORT);
    // Keeps the key, so that it is not Redis that ends the session.
    log_in(&store, "al", &token_id(0)).await;
    let created = store.create("al", &token_id(1), &new, None).await.unwrap();
    let expires_at = created.session.expires_at;
    assert_eq!(expires_at, created.session.created_at + 4 * SHORT);
    let mut checks = 0;
    loop {
        let before = live(&store, "al", &token_id(0)).await.now;
        let checked = store.check("al", &token_id(1)).await.unwrap();
        let after = live(&store, "al", &token_id(0)).await.now;
        match checked {
            Some(checked) => assert!(before < expires_at && checked.now < expires_at),
            None => {
                assert!(after >= expires_at);
                break;
            }
        }
        checks += 1;
    }
    println!("{checks} checks");
}

/// A hundred years fit into everything.
async fn the_longest_time_to_live_works(backend: &impl Server) {
    let (store, id) = (backend.store().await, token_id(1));
    let mut new = session(MAX_TTL);
    new.max_lifetime = Some(MAX_TTL);
    let created = store.create("al", &id, &new, None).await.unwrap().session;
    assert_eq!(created.expires_at, created.created_at + MAX_TTL);
    assert_eq!(created.ends_at, Some(created.expires_at));
    assert_eq!(end(backend).await, millis(created.expires_at));
    assert!(store.refresh("al", &id, MAX_TTL).await.unwrap());
    let found = live_session(&store, "al", &id).await;
    assert_eq!(found.expires_at, created.expires_at);
    let mode = PutMode::IfUnchanged(None);
    assert!(store.put_user("al", b"1", MAX_TTL, mode).await.unwrap());
    let mode = PutMode::IfUnchanged(Some(b"1"));
    assert!(store.put_user("al", b"2", MAX_TTL, mode).await.unwrap());
    let left: u128 = ask(backend.server(), &["PTTL", "tbs:users:{al}"]).await;
    assert!(left > (MAX_TTL - HOUR).as_millis() && left <= MAX_TTL.as_millis());
}

/// A user who logs in again and again for a moment has no ever growing hash, though one long session keeps
/// the key from expiring.
async fn short_logins_do_not_fill_the_hash(backend: &impl Server) {
    let store = backend.store().await;
    let keeper = log_in(&store, "al", &token_id(0)).await;
    let (moment, mut most) = (session(Duration::from_millis(5)), 0);
    for number in 1..=4000 {
        store
            .create("al", &token_id(number), &moment, None)
            .await
            .unwrap();
        if number % 100 == 0 {
            most = most.max(len(backend).await);
        }
    }
    println!("at most {most} fields after 4000 logins of 5 ms");
    assert!(most < 1000);
    // What is left goes with a few logins more.
    tokio::time::sleep(Duration::from_millis(20)).await;
    for number in 0..200 {
        log_in(&store, "al", &token_id(10_000 + number)).await;
    }
    assert!(len(backend).await < 201 + 50);
    assert_eq!(live_session(&store, "al", &token_id(0)).await, keeper);
}

/// With a session limit there is never more in the hash than the limit, dead or alive.
async fn a_limit_bounds_the_hash(backend: &impl Server) {
    let store = backend.store().await;
    log_in(&store, "al", &token_id(0)).await;
    let short = session(Duration::from_millis(1));
    for number in 1..200 {
        let limit = limit(3, OnFull::EvictLeastRecentlyRefreshed);
        store
            .create("al", &token_id(number), &short, limit)
            .await
            .unwrap();
        assert!(len(backend).await <= 3);
        if number % 20 == 0 {
            store.refresh("al", &token_id(0), HOUR).await.unwrap();
        }
    }
    let _ = is_live(&store, "al", &token_id(0)).await;
}

/// When the key of the sessions expires.
async fn end(backend: &impl Server) -> i64 {
    ask(backend.server(), &["PEXPIRETIME", KEY]).await
}

/// How many sessions are in the key, dead or alive.
async fn len(backend: &impl Server) -> u64 {
    ask(backend.server(), &["HLEN", KEY]).await
}
