use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    super::{eventually, patient_store},
    ask, everything_works, manager, sessions_key,
};
use crate::harness::{Cluster, Flavor, RedisServer};

/// A user of the first primary.
const USER: &str = "al";

/// A new node joins and takes over all slots of an old one, which leaves; the client was told of that one only, and
/// follows without an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_another_leaves() {
    // A primary that gives all its slots away does not become a replica, or there would be a moment without a primary.
    let stay = ["--cluster-allow-replica-migration", "no"];
    let cluster = Cluster::start_with(Flavor::Redis, None, &stay).await;
    let [old, second, third] = [0, 1, 2].map(|n| &cluster.nodes()[n]);
    let seed = format!("redis-cluster://127.0.0.1:{}", old.port());
    let store = patient_store(&seed).await;
    let manager = manager(store.clone());
    let kept = manager.set_token(USER, None).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy = tokio::spawn({
        let (manager, stop) = (manager.clone(), Arc::clone(&stop));
        async move {
            // Each on a primary of its own.
            for user in ["probe", "ed", "bo"].iter().cycle() {
                everything_works(&manager, user).await;
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    });

    let joining = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let new = RedisServer::start_with(Flavor::Redis, &joining).await;
    let port = old.port().to_string();
    new.cmd(&["CLUSTER", "MEET", "127.0.0.1", &port]).await;
    let (old_id, new_id) = (id(old).await, id(&new).await);
    for node in cluster.nodes() {
        eventually("a meeting", async || nodes(node).await.contains(&new_id)).await;
    }
    // A new node does not take anything at once.
    eventually("a part in the cluster", async || {
        let info: String = ask(&new, &["CLUSTER", "INFO"]).await;
        info.contains("cluster_state:ok")
    })
    .await;
    for slot in slots_of(&cluster, &["al", "probe"]).await {
        move_slot(slot, old, &new).await;
    }
    take_over_empty_slots(old, &new, 0..5461).await;
    let holds_all = format!("{new_id} ");
    for node in [&new, second, third] {
        eventually("the new owner", async || {
            let nodes = nodes(node).await;
            let line = nodes.lines().find(|line| line.starts_with(&holds_all));
            line.is_some_and(|line| line.contains(" 0-5460"))
        })
        .await;
    }
    println!("all slots moved");
    let address = format!("127.0.0.1:{}", new.port());
    let knows = async || {
        let health = store.health();
        let mut primaries = health.primaries().iter();
        health.primaries().len() == 3
            && primaries.any(|it| it.address() == address && it.is_connected())
    };
    eventually("the new map", knows).await;
    let replica = &cluster.nodes()[3];
    replica.cmd(&["CLUSTER", "REPLICATE", &new_id]).await;
    old.kill();
    for node in cluster.nodes()[1..].iter().chain([&new]) {
        let forget = ["CLUSTER", "FORGET", &old_id];
        node.cmd(&forget).await;
    }

    // The only node that the client was told of is gone, and more changes come.
    let slot = cluster.slot_of(&sessions_key(USER)).await;
    for (from, to) in [(&new, second), (second, third), (third, &new)] {
        move_slot(slot, from, to).await;
        let user = manager.check_token(kept.expose_secret()).await.unwrap();
        assert_eq!(user.expect("a live session").id(), USER);
        let to_id = id(to).await;
        for node in [&new, second, third] {
            eventually("agreement", async || owner(node, slot).await == to_id).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    busy.await.expect("no error");
    assert!(manager.delete_token(kept.expose_secret()).await.unwrap());
    everything_works(&manager, USER).await;
}

async fn slots_of(cluster: &Cluster, users: &[&str]) -> Vec<u16> {
    let mut slots = Vec::new();
    for user in users {
        slots.push(cluster.slot_of(&sessions_key(user)).await);
    }
    slots
}

/// Moves a slot that is in use.
async fn move_slot(slot: u16, from: &RedisServer, to: &RedisServer) {
    let (number, port) = (slot.to_string(), to.port().to_string());
    let (from_id, to_id) = (id(from).await, id(to).await);
    let set = async |node: &RedisServer, state: &str, id: &str| {
        node.cmd(&["CLUSTER", "SETSLOT", &number, state, id]).await;
    };
    set(to, "IMPORTING", &from_id).await;
    set(from, "MIGRATING", &to_id).await;
    loop {
        let keys: Vec<String> = ask(from, &["CLUSTER", "GETKEYSINSLOT", &number, "10"]).await;
        if keys.is_empty() {
            break;
        }
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000"];
        migrate.extend(["AUTH2", "harness", "harness", "KEYS"]);
        migrate.extend(keys.iter().map(String::as_str));
        from.cmd(&migrate).await;
    }
    set(to, "NODE", &to_id).await;
    set(from, "NODE", &to_id).await;
}

/// Gives slots without keys to another primary, by and by.
async fn take_over_empty_slots(from: &RedisServer, to: &RedisServer, slots: std::ops::Range<u16>) {
    let to_id = id(to).await;
    for node in [to, from] {
        let mut commands = redis::pipe();
        for slot in slots.clone() {
            commands
                .cmd("CLUSTER")
                .arg("SETSLOT")
                .arg(slot)
                .arg("NODE")
                .arg(&to_id)
                .ignore();
        }
        if node.port() == to.port() {
            commands.cmd("CLUSTER").arg("BUMPEPOCH").ignore();
        }
        commands.exec_async(&mut node.client().await).await.unwrap();
    }
}

/// The id of a slot's primary, as this node sees it.
async fn owner(node: &RedisServer, slot: u16) -> String {
    type Row = (u16, u16, (String, u16, String, Vec<String>));
    let rows: Vec<Vec<redis::Value>> = ask(node, &["CLUSTER", "SLOTS"]).await;
    for row in rows {
        let row = redis::Value::Array(row.into_iter().take(3).collect());
        let (first, last, (_, _, id, _)): Row = redis::from_redis_value(row).unwrap();
        if (first..=last).contains(&slot) {
            return id;
        }
    }
    String::new()
}

async fn id(node: &RedisServer) -> String {
    ask(node, &["CLUSTER", "MYID"]).await
}

async fn nodes(node: &RedisServer) -> String {
    ask(node, &["CLUSTER", "NODES"]).await
}
