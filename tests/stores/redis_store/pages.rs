//! What is done page by page ends by a deadline of its own, twenty times that of an operation.

use std::time::Duration;

use tower_bearer_session::{ErrorKind, OnFull, RedisStore, SessionStore, TokenId};

use super::{
    ask,
    many_sessions::{KEY, MANY, fill},
};
use crate::{
    harness::Proxy,
    stores::{HOUR, Server, limit, session, token_id},
};

/// Of an operation: each page takes a small part of it.
const DEADLINE: Duration = Duration::from_millis(500);
/// So long takes each way of a page, of which there are about two hundred.
const EACH_WAY: Duration = Duration::from_millis(50);

mod redis {
    crate::stores::cases!(Redis: a_list_ends_by_its_deadline, a_login_that_evicts_very_many_ends_by_its_deadline);
}

async fn a_list_ends_by_its_deadline(backend: &impl Server) {
    let (proxy, store) = scene(backend).await;
    // So that the connection for lists is there.
    let listed = async || {
        store
            .list("al")
            .await
            .map(|sessions| sessions.len() as u128)
    };
    assert_eq!(listed().await.unwrap(), MANY + 1);
    proxy.set_delay(EACH_WAY);
    let error = listed().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    // And not the deadline of a page.
    assert!(error.to_string().contains("not complete"), "{error}");
    // Nothing that begins afterwards is concerned.
    proxy.set_delay(Duration::ZERO);
    assert_eq!(listed().await.unwrap(), MANY + 1);
}

async fn a_login_that_evicts_very_many_ends_by_its_deadline(backend: &impl Server) {
    let (proxy, store) = scene(backend).await;
    let left = async || -> u128 { ask::<u64>(backend.server(), &["HLEN", KEY]).await.into() };
    let before = left().await;
    // So that the moment between the first and the last page of evictions is not missed.
    proxy.set_delay(Duration::from_millis(5));
    let login = tokio::spawn(async move {
        let id: TokenId = token_id(MANY * 2);
        let limit = limit(10, OnFull::EvictOldest);
        store.create("al", &id, &session(HOUR), limit).await
    });
    while left().await == before {
        assert!(!login.is_finished(), "a login before any eviction");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    proxy.set_delay(EACH_WAY);
    let error = login.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    let left = left().await;
    assert!(left > 10, "all were evicted");
    println!("{left} of {before} sessions are left");
}

/// A store that reaches the server through a proxy, with very many sessions of `al`.
async fn scene(backend: &impl Server) -> (Proxy, RedisStore) {
    fill(backend, &backend.store().await, 0..MANY, HOUR, 0).await;
    let proxy = Proxy::start(backend.server().port()).await;
    let store = RedisStore::builder(format!("redis://127.0.0.1:{}", proxy.port()));
    let store = store.deadline(DEADLINE).connect().await.unwrap();
    (proxy, store)
}
