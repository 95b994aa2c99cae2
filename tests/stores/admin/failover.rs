//! A failover during a listing.

use std::time::Duration;

use tower_bearer_session::{ErrorKind, RedisStore, SessionStore};

use crate::{
    eventually,
    harness::SentinelSet,
    stores::{listed_users, log_in, token_id},
};

/// The new master has the same users, but the cursor of the old one means nothing to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_does_not_survive_a_failover() {
    let set = SentinelSet::start().await;
    let store = RedisStore::builder(set.url()).connect_timeout(Duration::from_secs(10));
    let store = store
        .deadline(Duration::from_secs(10))
        .connect()
        .await
        .unwrap();
    for n in 0..3000 {
        log_in(&store, &format!("user{n}"), &token_id(1)).await;
    }
    let page = store.list_users(None).await.unwrap();
    let old = set.master().await;
    old.cmd(&["WAIT", "2", "10000"]).await;
    old.kill();
    set.new_master(old).await;
    eventually("a connection", async || store.ping().await.is_ok()).await;
    let mut text = String::new();
    eventually("the new master's answer", async || {
        let error = store.list_users(page.next.as_ref()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        text = error.to_string();
        text.contains("start another listing")
    })
    .await;
    assert!(text.contains("another one has taken its place"), "{text}");
    assert_eq!(listed_users(&store).await.len(), 3000);
}
