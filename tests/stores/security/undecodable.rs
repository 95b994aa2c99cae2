//! CVE-2026-39324: what cannot be decoded is refused, never guessed at, and never in the way.

use std::{sync::atomic::Ordering::SeqCst, time::SystemTime};

use ::redis::Cmd;
use tower_bearer_session::{OnFull, SessionStore, Token, store::PutMode};

use super::counting_manager;
use crate::stores::{
    Backend, DAY, HOUR, Server, is_live, limit, listed, live_session, log_in, on_every_store,
    session, token_id,
};

on_every_store!(
    a_cached_user_that_cannot_be_read_is_loaded_anew,
    metadata_that_cannot_be_read_is_none;
    servers:
    a_session_that_cannot_be_read_is_none,
    unreadable_sessions_are_in_nobodys_way,
    an_unreadable_session_is_no_exception,
    an_unreadable_session_can_be_created_anew,
);

/// The type of the user changed with a deploy, or somebody else wrote there: a miss, never an error.
async fn a_cached_user_that_cannot_be_read_is_loaded_anew(backend: &impl Backend) {
    let (manager, loads) = counting_manager(backend).await;
    let store = backend.store().await;
    let token = manager.set_token("al", HOUR).await.unwrap();
    let values: [&[u8]; 10] = [
        b"",
        b"\xff\xfe\0",
        b"null",
        b"\"al\"",
        b"{",
        b"{}",
        br#"{"id":"al"}"#,
        br#"{"id":"al","detail":{"name":"of another type"}}"#,
        br#"{"id":"bo","detail":"bo"}"#,
        br#"{"id":"al","detail":"al"} and more"#,
    ];
    for (before, value) in values.iter().enumerate() {
        store
            .put_user("al", value, DAY, PutMode::Replace)
            .await
            .unwrap();
        for _ in 0..2 {
            let check = manager.check_token_or_update_user(token.expose_secret(), None);
            let user = check.await.unwrap().unwrap();
            assert_eq!((user.id(), &**user.detail().unwrap()), ("al", "al"));
        }
        assert_eq!(loads.load(SeqCst), before + 1, "{value:?}");
    }
    // Without a loader there is nothing to load, and still a user.
    let without = backend
        .manager_builder()
        .await
        .user_type::<String>()
        .build()
        .unwrap();
    for value in values {
        store
            .put_user("al", value, DAY, PutMode::Replace)
            .await
            .unwrap();
        let check = without.check_token_or_update_user(token.expose_secret(), None);
        assert_eq!(check.await.unwrap().unwrap().detail(), None);
    }
}

/// Metadata that is not a JSON object does not make the session less valid, or the list fail.
async fn metadata_that_cannot_be_read_is_none(backend: &impl Backend) {
    let store = backend.store().await;
    let manager = backend
        .manager_builder()
        .await
        .user_type::<String>()
        .build()
        .unwrap();
    for (n, metadata) in (1..).zip([&b"\xff"[..], b"null", b"[1]", b"{\"a\":"]) {
        let mut new = session(HOUR);
        new.metadata = Some(metadata.into());
        store.create("al", &token_id(n), &new, None).await.unwrap();
    }
    let list = manager.list_user_tokens("al").await.unwrap();
    assert_eq!(list.len(), 4);
    assert!(list.iter().all(|token| token.metadata().is_empty()));
}

/// It is not live, cannot be refreshed, and a logout of it is no error.
async fn a_session_that_cannot_be_read_is_none(backend: &impl Server) {
    let manager = backend
        .manager_builder()
        .await
        .user_type::<String>()
        .build()
        .unwrap();
    for record in unreadable() {
        let token = manager.set_token("al", HOUR).await.unwrap();
        overwrite(backend, &token, &record).await;
        let text = token.expose_secret();
        assert!(
            manager.check_token(text).await.unwrap().is_none(),
            "{record:?}"
        );
        assert!(
            manager
                .check_token_or_update_user(text, None)
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            !manager.refresh_token(text, DAY).await.unwrap(),
            "{record:?}"
        );
        assert!(manager.check_token(text).await.unwrap().is_none());
        assert!(manager.list_user_tokens("al").await.unwrap().is_empty());
        assert!(!manager.delete_token(text).await.unwrap(), "{record:?}");
    }
}

/// Other sessions of the user work as if it were not there: logins, limits, lists, logouts.
async fn unreadable_sessions_are_in_nobodys_way(backend: &impl Server) {
    let store = backend.store().await;
    log_in(&store, "al", &token_id(1)).await;
    for (n, record) in unreadable().into_iter().enumerate() {
        write(backend, format!("unreadable {n}").as_bytes(), &record).await;
        write(
            backend,
            token_id(100 + n as u128).to_string().as_bytes(),
            &record,
        )
        .await;
    }
    assert_eq!(listed(&store, "al").await, [token_id(1)]);
    // They do not count.
    for (n, on_full) in [(2, OnFull::Reject), (3, OnFull::EvictOldest)] {
        let created = store
            .create("al", &token_id(n), &session(HOUR), limit(3, on_full))
            .await;
        assert!(created.unwrap().evicted.is_empty());
    }
    let full = store
        .create("al", &token_id(4), &session(HOUR), limit(3, OnFull::Reject))
        .await;
    assert!(full.is_err());
    let created = store
        .create(
            "al",
            &token_id(4),
            &session(HOUR),
            limit(1, OnFull::EvictOldest),
        )
        .await;
    assert_eq!(created.unwrap().evicted.len(), 3);
    assert_eq!(listed(&store, "al").await, [token_id(4)]);

    assert!(store.refresh("al", &token_id(4), DAY).await.unwrap());
    store.delete_all("al", Some(&token_id(4))).await.unwrap();
    assert_eq!(listed(&store, "al").await, [token_id(4)]);
    assert_eq!(store.delete_all("al", None).await.unwrap(), 1);
    assert_eq!(listed(&store, "al").await, []);
}

/// `delete_all` keeps an exception only if it is live, which this one is not.
async fn an_unreadable_session_is_no_exception(backend: &impl Server) {
    let store = backend.store().await;
    for record in unreadable() {
        log_in(&store, "al", &token_id(1)).await;
        write(backend, token_id(2).to_string().as_bytes(), &record).await;
        store.delete_all("al", Some(&token_id(2))).await.unwrap();
        assert!(!is_live(&store, "al", &token_id(1)).await);
        // So there is nothing left to delete.
        assert_eq!(store.delete_all("al", None).await.unwrap(), 0, "{record:?}");
    }
}

/// It is the same as one that never was: a login with its id is not an error.
async fn an_unreadable_session_can_be_created_anew(backend: &impl Server) {
    let store = backend.store().await;
    for record in unreadable() {
        write(backend, token_id(1).to_string().as_bytes(), &record).await;
        let created = store.create("al", &token_id(1), &session(HOUR), None).await;
        let created = created.unwrap_or_else(|error| panic!("{record:?}: {error:?}"));
        assert_eq!(
            live_session(&store, "al", &token_id(1)).await,
            created.session
        );
        store.delete_all("al", None).await.unwrap();
    }
}

/// Records that no version of this crate wrote. Some look as if they lived for long.
fn unreadable() -> Vec<Vec<u8>> {
    let in_an_hour = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        + HOUR;
    let in_an_hour = u64::try_from(in_an_hour.as_millis()).unwrap().to_be_bytes();
    let record = |version: u8, rest: usize| {
        let mut record = in_an_hour[2..].to_vec();
        record.push(version);
        record.resize(7 + rest, 1);
        record
    };
    vec![
        Vec::new(),
        b"1".to_vec(),
        b"\xff\xff\xff\xff\xff\xff".to_vec(),
        b"{\"expires\":99999999999999}".to_vec(),
        record(0, 18),
        record(1, 18),
        record(32, 18),
        record(255, 100),
        // They are cut off.
        record(2, 0),
        record(2, 11),
        record(1, 11),
        record(1, 12),
        record(1, 13),
    ]
}

async fn overwrite(backend: &impl Server, token: &Token, record: &[u8]) {
    write(backend, token.id().to_string().as_bytes(), record).await;
}

/// Puts a record among the sessions of "al".
async fn write(backend: &impl Server, field: &[u8], record: &[u8]) {
    let mut client = backend.server().client().await;
    let mut hset = Cmd::new();
    hset.arg("HSET")
        .arg("tbs:tokens:{al}")
        .arg(field)
        .arg(record);
    let _: i64 = hset.query_async(&mut client).await.unwrap();
}
