//! Random histories while servers take over from one another.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    history::{History, USERS},
    topologies::replica_of,
};
use crate::harness::{Cluster, Flavor, SentinelSet};

/// Primaries are demoted, frozen and killed, and slots move.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_is_accepted_late_in_a_cluster() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let history = Arc::new(History::default());
    // A primary that is killed may take with it what it has acknowledged.
    history
        .hold_against(&cluster.url(), false, async || {
            for round in 0..8 {
                sleep(Duration::from_millis(500)).await;
                let key = format!("tbs:tokens:{{user {round}}}");
                let primary = cluster.primary_of(&key).await;
                match round % 4 {
                    0 => {
                        let replica = replica_of(&cluster, primary).await;
                        replica.cmd(&["CLUSTER", "FAILOVER"]).await;
                        cluster.new_primary(&key, primary).await;
                        cluster.wait_until_whole().await;
                    }
                    1 => {
                        primary.freeze();
                        sleep(Duration::from_millis(500)).await;
                        primary.thaw();
                    }
                    2 => move_slot(&cluster, &key).await,
                    _ => {
                        primary.kill();
                        cluster.new_primary(&key, primary).await;
                        primary.restart().await;
                        cluster.wait_until_whole().await;
                    }
                }
            }
        })
        .await;
}

/// Slots move under load: nothing may be lost, neither a logout nor a login.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_is_accepted_late_and_none_refused_while_slots_move() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let history = Arc::new(History::default());
    history
        .hold_against(&cluster.url(), true, async || {
            for round in 0..30 {
                let key = format!("tbs:tokens:{{user {}}}", round % USERS);
                move_slot(&cluster, &key).await;
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
}

/// Masters are frozen, killed and replaced by the sentinels.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_is_accepted_late_under_sentinels() {
    let set = SentinelSet::start().await;
    let history = Arc::new(History::default());
    history
        .hold_against(&set.url(), false, async || {
            for round in 0..6 {
                sleep(Duration::from_millis(500)).await;
                let master = set.master().await;
                match round % 3 {
                    0 => {
                        master.freeze();
                        sleep(Duration::from_millis(300)).await;
                        master.thaw();
                    }
                    1 => {
                        master.kill();
                        set.new_master(master).await;
                        master.restart().await;
                        set.wait_until_whole().await;
                    }
                    _ => {
                        // It takes writes until it is found out.
                        master.freeze();
                        set.new_master(master).await;
                        master.thaw();
                        set.wait_until_whole().await;
                    }
                }
            }
        })
        .await;
}

/// Moves the slot of a key to another primary.
async fn move_slot(cluster: &Cluster, key: &str) {
    let from = cluster.primary_of(key).await.port();
    let mut primaries = Vec::new();
    for node in cluster.nodes() {
        let info: String =
            redis::from_redis_value(node.cmd(&["INFO", "replication"]).await).unwrap();
        if info.contains("role:master") && node.port() != from {
            primaries.push(node);
        }
    }
    let slot = cluster.slot_of(key).await;
    cluster.migrate_slot(slot, primaries[0]).await;
}
