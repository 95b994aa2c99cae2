//! How often nodes are asked for the map of slots.

use std::time::{Duration, Instant};

use tower_bearer_session::{RedisStore, SessionStore};

use super::{
    super::within,
    fake::{Endpoint, Slots, all_slots_at, empty, map_of},
    sessions_key,
};
use crate::{
    harness::{
        Cluster, Flavor,
        fake::{FakeServer, error},
    },
    stores::token_id,
};

/// For so long operations fail.
const OUTAGE: Duration = Duration::from_secs(3);
/// No more than so many times a second anybody is asked.
const REFRESHES: f64 = 4.0;

/// However many operations fail, the map is asked for a few times a second: here a node says that the cluster is down.
#[tokio::test]
async fn failing_operations_do_not_ask_for_the_map_all_the_time() {
    let node = FakeServer::start().await;
    let slots = all_slots_at(Endpoint::of(&node));
    node.answer(move |words| match words {
        ["GET", key] if key.ends_with(":{}") => empty(words),
        _ => map_of(&slots, words).or_else(|| Some(error("CLUSTERDOWN The cluster is down"))),
    });
    let url = format!("redis-cluster://127.0.0.1:{}", node.port());
    let store = RedisStore::connect(url).await.unwrap();
    let (before, start) = (node.calls("CLUSTER SLOTS"), Instant::now());
    let failed = fail(&store, "al", start).await;
    let refreshes = node.calls("CLUSTER SLOTS") - before;
    let allowed = allowed(start.elapsed());
    println!("{refreshes} refreshes for {failed} failures; {allowed} allowed");
    assert!(failed > 2 * allowed, "{failed} failures only");
    assert!(refreshes > 0, "nobody was asked");
    assert!(refreshes <= allowed, "{refreshes} > {allowed}");
}

/// Polls ask all of a few nodes, and in between only one is asked.
#[tokio::test]
async fn failing_operations_have_one_node_asked() {
    const NODES: u16 = 5;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(FakeServer::start().await);
    }
    let part = 16384 / NODES;
    let slots: Slots = (0..NODES)
        .map(|n| {
            let last = if n == NODES - 1 {
                16383
            } else {
                (n + 1) * part - 1
            };
            (n * part..=last, Endpoint::of(&nodes[usize::from(n)]))
        })
        .collect();
    for node in &nodes {
        let slots = slots.clone();
        node.answer(move |words| match words {
            ["GET", key] if key.ends_with(":{}") => empty(words),
            _ => map_of(&slots, words).or_else(|| Some(error("CLUSTERDOWN The cluster is down"))),
        });
    }
    let url = format!("redis-cluster://127.0.0.1:{}", nodes[0].port());
    let store = RedisStore::connect(url).await.unwrap();
    let calls = || {
        nodes
            .iter()
            .map(|node| node.calls("CLUSTER SLOTS"))
            .sum::<usize>()
    };
    let (before, start) = (calls(), Instant::now());
    fail(&store, "al", start).await;
    let (asked, took) = (calls() - before, start.elapsed());
    let polls = took.as_secs_f64() / 2.0 + 1.0;
    let allowed = polls as usize * usize::from(NODES) + allowed(took);
    println!("{asked} times a node was asked; {allowed} allowed");
    assert!(asked > 0 && asked <= allowed, "{asked} > {allowed}");
}

/// Pings that fail have the map asked for as well, earlier than when nothing fails.
#[tokio::test]
async fn failing_pings_have_the_map_asked_for() {
    let node = FakeServer::start().await;
    let slots = all_slots_at(Endpoint::of(&node));
    node.answer(move |words| match words {
        ["HDEL", ..] => Some(error("CLUSTERDOWN The cluster is down")),
        _ => map_of(&slots, words).or_else(|| empty(words)),
    });
    let url = format!("redis-cluster://127.0.0.1:{}", node.port());
    let store = RedisStore::connect(url).await.unwrap();
    let before = node.calls("CLUSTER SLOTS");
    // In this time, 8 is what nobody has to ask for.
    within(Duration::from_secs(15), "12 refreshes", async || {
        let error = store.ping().await.unwrap_err();
        assert!(error.is_fault());
        node.calls("CLUSTER SLOTS") >= before + 12
    })
    .await;
}

/// And here a primary is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_down_does_not_make_others_tell_the_map_all_the_time() {
    let coverage = ["--cluster-require-full-coverage", "no"];
    let cluster = Cluster::start_with(Flavor::Redis, None, &coverage).await;
    let store = RedisStore::connect(cluster.url()).await.unwrap();
    let down = cluster.primary_of(&sessions_key("al")).await;
    assert_eq!(down.port(), cluster.nodes()[0].port());
    // Nobody takes over.
    cluster.nodes()[3].kill();
    down.kill();
    let others = &cluster.nodes()[1..3];
    let calls = async || {
        let mut calls = Vec::new();
        for node in others {
            let stats = node.command_calls().await;
            calls.push(stats.get("cluster|slots").copied().unwrap_or(0));
        }
        calls
    };
    let (before, start) = (calls().await, Instant::now());
    let failed = fail(&store, "al", start).await;
    let allowed = allowed(start.elapsed());
    for (after, before) in calls().await.into_iter().zip(before) {
        let refreshes = usize::try_from(after - before).unwrap();
        println!("{refreshes} refreshes for {failed} failures; {allowed} allowed");
        assert!(refreshes > 0, "nobody was asked");
        assert!(refreshes <= allowed, "{refreshes} > {allowed}");
    }
}

/// Checks that fail, one after the other; tells how many.
async fn fail(store: &RedisStore, user: &str, start: Instant) -> usize {
    let mut failed = 0;
    while start.elapsed() < OUTAGE {
        let error = store.check(user, &token_id(1)).await.unwrap_err();
        assert!(error.is_fault());
        failed += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    failed
}

/// How many refreshes are few, in this time: on a slow machine it is longer, and they are no more.
fn allowed(time: Duration) -> usize {
    (time.as_secs_f64() * REFRESHES) as usize + 2
}
