//! `ping`: only primaries that serve answer it.

use std::time::Duration;

use tower_bearer_session::{ErrorKind, RedisStore, SessionStore};

use crate::{
    harness::{Cluster, Flavor, RedisServer, SentinelSet},
    stores::{Server, commands_of, on_every_server, patient},
};

on_every_server!(
    a_ping_is_one_command_that_changes_nothing,
    a_replica_does_not_answer_for_its_primary,
    a_server_that_cannot_write_for_now_is_no_reason_to_leave,
);

async fn a_ping_is_one_command_that_changes_nothing(backend: &impl Server) {
    let store = backend.store().await;
    let (commands, ()) = commands_of(backend.server(), async {
        for _ in 0..10 {
            store.ping().await.unwrap();
        }
    })
    .await;
    assert_eq!(commands, [("hdel".to_owned(), 10)].into());
    assert!(backend.server().dump_everything().await.is_empty());
}

/// Demoted in place, with all its connections open.
async fn a_replica_does_not_answer_for_its_primary(backend: &impl Server) {
    let store = backend.store().await;
    store.ping().await.unwrap();
    let server = backend.server();
    server.cmd(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = store.ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    server.cmd(&["REPLICAOF", "NO", "ONE"]).await;
    store.ping().await.unwrap();
}

/// It lacks replicas, or memory: checks go on.
async fn a_server_that_cannot_write_for_now_is_no_reason_to_leave(backend: &impl Server) {
    let store = backend.store().await;
    for (setting, on, off) in [("min-replicas-to-write", "1", "0"), ("maxmemory", "1", "0")] {
        backend.server().cmd(&["CONFIG", "SET", setting, on]).await;
        store.ping().await.unwrap();
        backend.server().cmd(&["CONFIG", "SET", setting, off]).await;
    }
}

/// Within the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_answers_no_ping() {
    let server = RedisServer::start(Flavor::Redis).await;
    let store = RedisStore::builder(server.url()).deadline(Duration::from_millis(50));
    let store = store.connect().await.unwrap();
    store.ping().await.unwrap();
    server.freeze();
    let error = store.ping().await.unwrap_err();
    assert!(error.is_fault(), "{error:?}");
    server.thaw();
}

/// The master that the sentinels name, and no other server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_answers_a_ping() {
    let set = SentinelSet::start().await;
    let store = patient(RedisStore::builder(set.url()));
    let store = store.connect().await.unwrap();
    let (commands, ()) = commands_of(set.master().await, async {
        store.ping().await.unwrap();
    })
    .await;
    assert_eq!(commands.get("hdel"), Some(&1), "{commands:?}");
}

/// Each is asked once, whatever slots it holds; while one of them is away the cluster is not whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_primary_of_a_cluster_answers_a_ping() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let store = RedisStore::builder(cluster.url()).deadline(Duration::from_secs(2));
    let store = store.connect().await.unwrap();
    // All are connected to.
    crate::eventually("a ping", async || store.ping().await.is_ok()).await;
    let mut before = Vec::new();
    for node in &cluster.nodes()[..3] {
        before.push(node.command_calls().await.get("hdel").copied().unwrap_or(0));
    }
    store.ping().await.unwrap();
    for (node, before) in cluster.nodes()[..3].iter().zip(before) {
        let calls = node.command_calls().await;
        assert_eq!(calls.get("hdel"), Some(&(before + 1)));
    }
    // A slot that is on the move is served, by one of two.
    let slot = cluster.slot_of("tbs:users:{0}:").await;
    let from = cluster.primary_of("tbs:users:{0}:").await.port();
    let to = cluster.nodes()[..3].iter().find(|node| node.port() != from);
    let migration = cluster.begin_migration(slot, to.unwrap()).await;
    store.ping().await.unwrap();
    migration.finish().await;
    store.ping().await.unwrap();
    let lost = &cluster.nodes()[2];
    lost.freeze();
    let error = store.ping().await.unwrap_err();
    assert!(error.is_fault(), "{error:?}");
    lost.thaw();
    crate::eventually("a ping", async || store.ping().await.is_ok()).await;
}
