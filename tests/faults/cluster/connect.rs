use std::time::{Duration, Instant};

use tower_bearer_session::{Error, ErrorKind, RedisStore, RedisStoreBuilder};

use super::{
    super::{LONG_TIMEOUT, eventually, everything, is_unavailable},
    everything_works,
    fake::{Endpoint, Slots, empty, map_of},
    manager,
};
use crate::harness::{Cluster, Flavor, RedisServer, fake::FakeServer};

/// What is wrong with the nodes is said clearly, without the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_cluster_is_refused() {
    let plain = RedisServer::start(Flavor::Redis).await;
    let error = refused(&url(&[&plain], "")).await;
    assert_eq!(error.kind(), ErrorKind::Store);
    assert_says(&error, "cluster support disabled");

    let unjoined = ["--cluster-enabled", "yes"];
    let unjoined = RedisServer::start_with(Flavor::Redis, &unjoined).await;
    let error = refused(&url(&[&unjoined], "")).await;
    assert!(is_unavailable(&error), "{error:?}");
    assert_says(&error, "no node of the cluster holds any slot");

    let error = refused(&format!("{}/3", url(&[&plain], ":hunter2@"))).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_says(&error, "no database but 0");

    plain.kill();
    unjoined.kill();
    let error = refused(&url(&[&plain, &unjoined], ":hunter2@")).await;
    assert!(is_unavailable(&error), "{error:?}");
    for part in [
        "refused",
        &plain.port().to_string(),
        &unjoined.port().to_string(),
    ] {
        assert_says(&error, part);
    }
}

/// A wrong or missing password is a clear error that holds no password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_refused_and_not_told() {
    let password = [
        "--requirepass",
        "the-real-one",
        "--masterauth",
        "the-real-one",
    ];
    let cluster = Cluster::start_with(Flavor::Redis, None, &password).await;
    let nodes: Vec<_> = cluster.nodes().iter().collect();
    for (credentials, expected) in [
        (":hunter2@", "WRONGPASS"),
        ("nobody:hunter2@", "WRONGPASS"),
        ("", "NOAUTH"),
    ] {
        let error = refused(&url(&nodes, credentials)).await;
        assert!(is_unavailable(&error), "{error:?}");
        assert_says(&error, expected);
    }
    let store = RedisStore::connect(url(&nodes[..1], ":the-real-one@")).await;
    everything_works(&manager(store.unwrap()), "al").await;
}

/// One node that can be asked is enough, whatever the others are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_is_enough() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let [dead, hung, plain] = [
        RedisServer::start(Flavor::Redis).await,
        RedisServer::start(Flavor::Redis).await,
        RedisServer::start(Flavor::Redis).await,
    ];
    dead.kill();
    hung.freeze();
    // A primary, and a replica.
    for node in [&cluster.nodes()[1], &cluster.nodes()[4]] {
        for other in [&dead, &hung, &plain] {
            for seeds in [[node, other], [other, node]] {
                let start = Instant::now();
                let store = RedisStore::connect(url(&seeds, "")).await.unwrap();
                println!("connected after {:?}", start.elapsed());
                everything_works(&manager(store), "al").await;
            }
        }
    }
}

/// A store can be made while a primary hangs whose replica has not taken over yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_primary_does_not_keep_a_store_from_connecting() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let hung = &cluster.nodes()[0];
    hung.freeze();
    let start = Instant::now();
    let store = RedisStore::connect(cluster.url()).await.unwrap();
    println!("connected after {:?}", start.elapsed());
    let manager = manager(store);
    let took = eventually("a login", async || {
        manager.set_token("al", None).await.is_ok()
    })
    .await;
    println!("logged in after {took:?}");
    manager.delete_user_tokens("al").await.unwrap();
    everything_works(&manager, "al").await;
}

/// Whoever hangs, seeds or primaries, one that answers is enough, and is not kept waiting for the others.
#[tokio::test]
async fn one_node_that_answers_is_enough_whoever_hangs() {
    let (good, mut hung) = (FakeServer::start().await, Vec::new());
    for _ in 0..8 {
        hung.push(FakeServer::start().await);
    }
    let nodes: Vec<_> = hung.iter().chain([&good]).collect();
    let part = 16384 / nodes.len() as u16;
    let slots = nodes.iter().zip(0..).map(|(node, n)| {
        let first = part * n;
        (first..=first + part - 1, Endpoint::of(node))
    });
    let slots: Slots = slots.collect();
    good.answer(move |words| map_of(&slots, words).or_else(|| empty(words)));
    for seeds in [&nodes[8..], &nodes[..]] {
        let seeds: Vec<_> = seeds
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        // Whoever waits for one that hangs, waits for too long.
        let store = RedisStoreBuilder::cluster(seeds).connect_timeout(4 * LONG_TIMEOUT);
        let connecting = tokio::time::timeout(LONG_TIMEOUT, store.connect());
        let store = connecting.await.expect("a store soon").unwrap();
        assert!(store.is_connected());
    }
}

/// A store that connects lazily finds a cluster that starts later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lazy_store_waits_for_its_cluster() {
    let cluster = Cluster::start(Flavor::Redis).await;
    for node in cluster.nodes() {
        node.kill();
    }
    let store = RedisStore::builder(cluster.url()).connect_lazy().unwrap();
    let manager = manager(store.clone());
    for _ in 0..3 {
        let error = manager.set_token("al", None).await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
        assert!(!store.is_connected());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for node in cluster.nodes() {
        node.restart().await;
    }
    let took = eventually("connection", async || {
        manager.set_token("al", None).await.is_ok()
    })
    .await;
    println!("connected after {took:?}");
}

/// The error of connecting with default timings, which must come soon.
async fn refused(url: &str) -> Error {
    let start = Instant::now();
    let connecting = tokio::time::timeout(LONG_TIMEOUT, RedisStore::connect(url));
    let connected = connecting.await.expect("an end of the attempt");
    println!("refused after {:?}", start.elapsed());
    connected.expect_err("no connection")
}

fn assert_says(error: &Error, part: &str) {
    let text = everything(error);
    assert!(text.contains(part), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

fn url(nodes: &[&RedisServer], credentials: &str) -> String {
    let nodes: Vec<_> = nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    let seeds = nodes.join("&node=").replacen('&', "?", 1);
    format!("redis-cluster://{credentials}{seeds}")
}
