use ::redis::Value;
use tower_bearer_session::{ErrorKind, OnFull, SessionStore, store::PutMode};

use super::{ask, millis};
use crate::stores::{
    DAY, HOUR, Server, is_live, limit, listed, live, log_in, on_every_server, session, token_id,
};

on_every_server!(
    a_key_of_another_type_is_an_error,
    a_cached_user_of_another_type_is_an_error,
    garbage_is_no_session,
    garbage_that_is_dead_is_freed,
    a_hash_that_lost_its_expiry_keeps_its_sessions,
);

const KEY: &str = "tbs:tokens:{al}";
const USER_KEY: &str = "tbs:users:{al}";

/// Somebody else's value where a user's sessions should be: a fault, and nobody else's problem.
async fn a_key_of_another_type_is_an_error(backend: &impl Server) {
    let (store, id) = (backend.store().await, token_id(1));
    backend.server().cmd(&["SET", KEY, "a string"]).await;
    let errors = [
        store.check("al", &id).await.err(),
        store.create("al", &id, &session(HOUR), None).await.err(),
        store.refresh("al", &id, HOUR).await.err(),
        store.delete("al", &id).await.err(),
        store.list("al").await.err(),
        store.delete_all("al", None).await.err(),
        store.delete_all("al", Some(&id)).await.err(),
    ];
    for error in errors {
        let error = error.expect("an error");
        assert_eq!(error.kind(), ErrorKind::Store);
        assert!(format!("{error:?}").contains("WRONGTYPE"), "{error:?}");
    }
    let untouched: String = ask(backend.server(), &["GET", KEY]).await;
    assert_eq!(untouched, "a string");
    log_in(&store, "bo", &id).await;
    assert!(is_live(&store, "bo", &id).await);
}

/// The same where a user should be cached; replacing the user repairs it.
async fn a_cached_user_of_another_type_is_an_error(backend: &impl Server) {
    let (store, id) = (backend.store().await, token_id(1));
    log_in(&store, "al", &id).await;
    backend.server().cmd(&["RPUSH", USER_KEY, "a list"]).await;
    let seen = PutMode::IfUnchanged(Some(b"1"));
    let errors = [
        store.check("al", &id).await.err(),
        store.get_user("al").await.err(),
        store.put_user("al", b"2", HOUR, seen).await.err(),
    ];
    for error in errors {
        assert_eq!(error.expect("an error").kind(), ErrorKind::Store);
    }
    let put = store.put_user("al", b"1", HOUR, PutMode::Replace).await;
    assert!(put.unwrap());
    let checked = live(&store, "al", &id).await;
    assert_eq!(&*checked.user.unwrap(), b"1");
}

/// What is no record is no session: not live, not listed, not counted, and no harm to real ones.
async fn garbage_is_no_session(backend: &impl Server) {
    let (store, real) = (backend.store().await, token_id(0));
    let record = log_in(&store, "al", &real).await;
    let no_version: &[u8] = &[[0xFF; 6].as_slice(), &[32], &[0; 18]].concat();
    let no_header: &[u8] = &[0xFF; 24];
    let garbage: [&[u8]; 4] = [b"", b"x", no_header, no_version];
    for (number, garbage) in (1..).zip(garbage) {
        let id = token_id(number);
        set(backend, id.to_string().as_bytes(), garbage).await;
        set(backend, format!("field {number}").as_bytes(), garbage).await;
        set(backend, &[0xFF, number as u8], garbage).await;
        assert!(!is_live(&store, "al", &id).await);
        assert!(!store.refresh("al", &id, HOUR).await.unwrap());
        assert!(!is_live(&store, "al", &id).await);
    }
    assert_eq!(listed(&store, "al").await, [real]);
    // There is room for one more, and the oldest real one is the next to go.
    for on_full in [OnFull::EvictOldest, OnFull::EvictLeastRecentlyRefreshed] {
        let new = session(HOUR);
        let made = store
            .create("al", &token_id(50), &new, limit(2, on_full))
            .await;
        assert!(made.unwrap().evicted.is_empty());
        let made = store
            .create("al", &token_id(51), &new, limit(2, on_full))
            .await;
        assert_eq!(made.unwrap().evicted.len(), 1);
        store.delete_all("al", None).await.unwrap();
        log_in(&store, "al", &real).await;
        set(backend, b"field", no_version).await;
    }
    // What takes the place of garbage is a session.
    let id = token_id(60);
    set(backend, id.to_string().as_bytes(), b"x").await;
    log_in(&store, "al", &id).await;
    assert!(is_live(&store, "al", &id).await);
    assert!(store.delete("al", &id).await.unwrap());
    assert!(record.expires_at > record.created_at);
}

/// Garbage without an expiry in the future goes as dead sessions do.
async fn garbage_that_is_dead_is_freed(backend: &impl Server) {
    let store = backend.store().await;
    log_in(&store, "al", &token_id(0)).await;
    for number in 0..10_u8 {
        set(backend, &[number, 0xFF], b"garbage").await;
        set(backend, &[number], &[number; 5]).await;
    }
    // "garbage" begins with a date in the year 5553.
    for number in 1..40 {
        log_in(&store, "al", &token_id(number)).await;
    }
    let left: u64 = ask(backend.server(), &["HLEN", KEY]).await;
    assert_eq!(left, 40 + 10);
    assert_eq!(listed(&store, "al").await.len(), 40);
}

/// A hash may lose its expiry, restored from a backup for one. The next login gives it one, and not one that
/// takes the sessions that were there before along.
async fn a_hash_that_lost_its_expiry_keeps_its_sessions(backend: &impl Server) {
    let (store, long, short) = (backend.store().await, token_id(1), token_id(2));
    let created = store
        .create("al", &long, &session(DAY), None)
        .await
        .unwrap();
    let expires_at = millis(created.session.expires_at);
    for write in 0..3 {
        let lost: u8 = ask(backend.server(), &["PERSIST", KEY]).await;
        assert_eq!(lost, 1);
        match write {
            0 => drop(log_in(&store, "al", &short).await),
            1 => assert!(store.refresh("al", &short, HOUR).await.unwrap()),
            _ => assert_eq!(store.delete_all("al", Some(&long)).await.unwrap(), 1),
        }
        let end: i64 = ask(backend.server(), &["PEXPIRETIME", KEY]).await;
        assert!(
            end == -1 || end >= expires_at,
            "write {write}: {end} < {expires_at}"
        );
    }
}

/// Puts a field past the store.
async fn set(backend: &impl Server, field: &[u8], value: &[u8]) {
    let mut client = backend.server().client().await;
    let set = ::redis::cmd("HSET").arg(KEY).arg(field).arg(value).take();
    let _: Value = set.query_async(&mut client).await.expect("a hash");
}
