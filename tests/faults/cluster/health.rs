use std::collections::BTreeMap;

use tower_bearer_session::{RedisStore, RedisTopology};

use super::{super::eventually, sessions_key};
use crate::{
    harness::{Cluster, Flavor, RedisServer},
    stores::{log_in, token_id},
};

/// The health of a store tells of all primaries, of one that is away, and of the one that takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_of_every_primary() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let store = RedisStore::connect(cluster.url()).await.unwrap();
    let [first, second, third, replica] = [0, 1, 2, 3].map(|n| &cluster.nodes()[n]);
    assert_eq!(store.health().topology(), RedisTopology::Cluster);
    eventually("connections", async || {
        primaries(&store) == are(&[(first, true), (second, true), (third, true)])
    })
    .await;
    assert!(store.health().last_error().is_none());
    assert_eq!(store.health().reconnects(), 0);
    log_in(&store, "al", &token_id(1)).await;
    let old = cluster.primary_of(&sessions_key("al")).await;
    assert_eq!(old.port(), first.port());

    old.kill();
    let took = eventually("loss", async || {
        assert!(store.is_connected());
        let health = store.health();
        health.last_error().is_some()
            && primaries(&store) == are(&[(first, false), (second, true), (third, true)])
    })
    .await;
    println!("known to be away after {took:?}");
    let health = store.health();
    let (_, error) = health.last_error().expect("an error");
    assert!(error.is_fault(), "{error:?}");
    assert!(
        format!("{error}").contains(&first.port().to_string()),
        "{error:?}"
    );
    let took = eventually("the new primary", async || {
        assert!(store.is_connected());
        primaries(&store) == are(&[(replica, true), (second, true), (third, true)])
    })
    .await;
    println!("the new primary is known after {took:?}");

    old.restart().await;
    cluster.wait_until_whole().await;
    replica.cmd(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    eventually("a reconnect", async || store.health().reconnects() > 0).await;
    for node in cluster.nodes() {
        node.kill();
    }
    eventually("loss of all", async || !store.is_connected()).await;
    assert_eq!(store.health().primaries().len(), 3);
}

/// The addresses of all primaries, and whether there is a connection.
fn primaries(store: &RedisStore) -> BTreeMap<String, bool> {
    let health = store.health();
    let primaries = health.primaries().iter();
    primaries
        .map(|it| (it.address().to_owned(), it.is_connected()))
        .collect()
}

fn are(nodes: &[(&RedisServer, bool)]) -> BTreeMap<String, bool> {
    let address = |node: &RedisServer| format!("127.0.0.1:{}", node.port());
    nodes
        .iter()
        .map(|(node, connected)| (address(node), *connected))
        .collect()
}
