//! The same promise while servers take over from one another.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tower_bearer_session::{NearCache, RedisStore, SessionStore};

use super::{LONG_TIMEOUT, is_hit, warm};
use crate::{
    harness::{Cluster, Flavor, RedisServer, SentinelSet},
    stores::{log_in, session, token_id},
};

const MAX_STALENESS: Duration = Duration::from_millis(300);

/// A store without a near-cache, and one with it.
struct Stores {
    plain: RedisStore,
    near: RedisStore,
}

impl Stores {
    async fn of(url: &str) -> Self {
        let builder = || RedisStore::builder(url).connect_timeout(LONG_TIMEOUT);
        let near = NearCache::new().max_staleness(MAX_STALENESS);
        Self {
            plain: builder().connect().await.unwrap(),
            near: builder().near_cache(near).connect().await.unwrap(),
        }
    }

    /// Logs in, and waits until the near-cache has the session.
    async fn warm(&self, user: &str) {
        let id = token_id(1);
        let logging_in = async {
            // A failover may be passing.
            while self.plain.check(user, &id).await.ok().flatten().is_none() {
                let _ = self
                    .plain
                    .create(user, &id, &session(LONG_TIMEOUT * 10), None)
                    .await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG_TIMEOUT, logging_in)
            .await
            .expect("a login");
        warm(&self.near, user, &id).await;
    }

    /// Logs out as soon as that is possible, and tells for how long afterwards the near-cache lets the token pass.
    async fn lag(&self, user: &str) -> Duration {
        let id = token_id(1);
        let logging_out = async {
            while self.plain.delete_all(user, None).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG_TIMEOUT, logging_out)
            .await
            .expect("a logout");
        let acknowledged = Instant::now();
        let mut last = Duration::ZERO;
        while acknowledged.elapsed() < 4 * MAX_STALENESS {
            let begun = acknowledged.elapsed();
            if is_hit(&self.near, user, &id) {
                last = begun;
            }
            tokio::task::yield_now().await;
        }
        println!("{user}: {last:?}");
        assert!(last <= MAX_STALENESS, "{last:?}");
        last
    }
}

fn key(user: &str) -> String {
    format!("tbs:tokens:{{{user}}}")
}

/// Each node announces the changes of its own keys, and has a lease of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_of_a_cluster_is_cached() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let stores = Stores::of(&cluster.url()).await;
    for n in 0..20 {
        let user = format!("user {n}");
        stores.warm(&user).await;
        let lag = if n < 5 {
            stores.lag(&user).await
        } else {
            Duration::ZERO
        };
        assert!(lag < MAX_STALENESS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let stores = Stores::of(&cluster.url()).await;
    for user in ["al", "bo"] {
        stores.warm(user).await;
        let from = cluster.primary_of(&key(user)).await.port();
        let to = cluster.nodes()[..3].iter().find(|node| node.port() != from);
        let slot = cluster.slot_of(&key(user)).await;
        cluster
            .migrate_slot(slot, to.expect("another primary"))
            .await;
        stores.lag(user).await;
        stores.warm(user).await;
        stores.lag(user).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_in_a_cluster_takes_over() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let stores = Stores::of(&cluster.url()).await;
    stores.warm("al").await;
    let old = cluster.primary_of(&key("al")).await;
    let replica = replica_of(&cluster, old).await;
    replica.cmd(&["CLUSTER", "FAILOVER"]).await;
    cluster.new_primary(&key("al"), old).await;
    stores.lag("al").await;
    stores.warm("al").await;
    stores.lag("al").await;
    cluster.wait_until_whole().await;

    stores.warm("bo").await;
    let old = cluster.primary_of(&key("bo")).await;
    old.freeze();
    // Until the replica has taken over, no logout is acknowledged.
    stores.lag("bo").await;
    old.thaw();
    stores.lag("bo").await;
    stores.warm("bo").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_from_a_master() {
    let set = SentinelSet::start().await;
    let stores = Stores::of(&set.url()).await;
    stores.warm("al").await;
    let old = set.master().await;
    old.kill();
    stores.lag("al").await;
    set.new_master(old).await;
    stores.warm("al").await;
    stores.lag("al").await;
    old.restart().await;
    set.wait_until_whole().await;

    stores.warm("bo").await;
    let old = set.master().await;
    old.freeze();
    stores.lag("bo").await;
    old.thaw();
    stores.lag("bo").await;
    stores.warm("bo").await;
}

/// The server is demoted in place, and goes on to answer: from then on it gets no logout, and announces none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_in_place_is_noticed() {
    let server = RedisServer::start(Flavor::Redis).await;
    let store = RedisStore::builder(server.url()).near_cache(NearCache::new());
    let store = store.connect().await.unwrap();
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    warm(&store, "al", &id).await;
    server.cmd(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let demoted = Instant::now();
    // Once checks are not answered because of it, nor does the near-cache answer. (On a busy machine a check may also
    // take too long.)
    while store.check("al", &id).await.is_ok() || is_hit(&store, "al", &id) {
        assert!(demoted.elapsed() < LONG_TIMEOUT);
        sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn replica_of<'a>(cluster: &'a Cluster, primary: &RedisServer) -> &'a RedisServer {
    let port = primary.port().to_string();
    for node in cluster.nodes() {
        let info = node.cmd(&["INFO", "replication"]).await;
        let info: String = redis::from_redis_value(info).expect("text");
        let is_its = info.contains(&format!("master_port:{port}"));
        if is_its && info.contains("role:slave") {
            return node;
        }
    }
    panic!("no replica of {port}");
}
