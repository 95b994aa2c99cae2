use std::time::SystemTime;

use tower_bearer_session::{RedisStore, RedisTopology, TokenManager};

use super::{
    RedisServer, SentinelOptions, SentinelSet, address, eventually, everything, replace,
    replicated, settled,
};

/// Health follows the master, through a kill and a planned failover, and tells no password.
#[tokio::test]
async fn health_follows_the_master() {
    let set = SentinelSet::start_with(SentinelOptions {
        node_password: Some("for-nodes"),
        sentinel_password: Some("for-sentinels"),
        ..SentinelOptions::default()
    })
    .await;
    let builder = RedisStore::builder(set.url()).password("for-nodes");
    let store = builder.sentinel_password("for-sentinels").connect().await;
    let store = store.unwrap();
    let begun = SystemTime::now();
    let old = set.master().await;
    let health = store.health();
    assert_eq!(health.topology(), RedisTopology::Sentinel);
    assert_eq!(health.reconnects(), 0);
    assert!(health.last_error().is_none());
    assert_primary(&store, old, true);

    replicated(old, 2).await;
    old.kill();
    let took = eventually("a loss", async || !store.is_connected()).await;
    println!("the loss shows after {took:?}");
    assert_eq!(store.health().primaries().len(), 1);
    let new = settled(&set, old).await;
    eventually("a connection", async || store.is_connected()).await;
    assert_primary(&store, new, true);
    let health = store.health();
    assert!(health.reconnects() > 0);
    let (at, error) = health.last_error().expect("an error");
    assert!(at >= begun && at <= SystemTime::now());
    println!("{}", everything(error));
    for secret in ["for-nodes", "for-sentinels"] {
        assert!(!everything(error).contains(secret));
        assert!(!format!("{store:?} {health:#?}").contains(secret));
    }
    TokenManager::new(store.clone())
        .set_token("al", None)
        .await
        .unwrap();

    old.restart().await;
    set.wait_until_whole().await;
    assert_primary(&store, new, true);
    let before = store.health().reconnects();
    let next = replace(&set, new, &set.sentinels()[0]).await;
    eventually("the next master", async || {
        store.health().primaries()[0].address() == address(next)
    })
    .await;
    eventually("a connection", async || store.is_connected()).await;
    assert!(store.health().reconnects() > before);
}

#[track_caller]
fn assert_primary(store: &RedisStore, server: &RedisServer, connected: bool) {
    let health = store.health();
    let [primary] = health.primaries() else {
        panic!("{health:?}");
    };
    assert_eq!(primary.address(), address(server));
    assert_eq!(primary.is_connected(), connected);
    assert_eq!(health.is_connected(), connected);
}
