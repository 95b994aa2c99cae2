//! Which announcements of sentinels a store heeds, and how.

use std::time::{Duration, Instant};

use redis::Value;
use tower_bearer_session::{RedisStore, SessionStore};

use super::{
    super::patient_store,
    LONG_TIMEOUT, SentinelSet, address, eventually,
    fake::{FakeSentinel, View, url},
    within,
};
use crate::{
    harness::{Flavor, RedisServer},
    stores::{log_in, token_id},
};

/// A store whose master is `old`, by the word of one sentinel, and a replica of that master.
struct Scene {
    sentinel: [FakeSentinel; 1],
    old: RedisServer,
    replica: RedisServer,
    store: RedisStore,
}

impl Scene {
    async fn new() -> Self {
        let old = RedisServer::start(Flavor::Redis).await;
        let replica = RedisServer::start(Flavor::Redis).await;
        replica
            .cmd(&["REPLICAOF", "127.0.0.1", &old.port().to_string()])
            .await;
        let view = View {
            epoch: 1,
            master: old.port(),
            ..View::default()
        };
        let sentinel = [FakeSentinel::start(view).await];
        let store = patient_store(&url(&sentinel)).await;
        Self {
            sentinel,
            old,
            replica,
            store,
        }
    }

    /// Announces something of the replica.
    fn announce(&self, channel: &str) {
        let (replica, old) = (self.replica.port(), self.old.port());
        let message =
            format!("slave 127.0.0.1:{replica} 127.0.0.1 {replica} @ mymaster 127.0.0.1 {old}");
        self.sentinel[0].server.publish(channel, &message);
    }

    /// The sentinel has told the replica to become the master.
    fn begin_promotion(&self) {
        self.sentinel[0].change(|view| view.failover = Some("wait_promotion"));
        self.announce("+failover-state-wait-promotion");
    }

    async fn promote(&self) {
        self.replica.cmd(&["REPLICAOF", "NO", "ONE"]).await;
    }

    fn uses(&self, server: &RedisServer) -> bool {
        uses(&self.store, server)
    }

    /// Operations go to this server.
    async fn works_at(&self, server: &RedisServer, user: &str) {
        log_in(&self.store, user, &token_id(1)).await;
        let key = format!("tbs:tokens:{{{user}}}");
        assert_eq!(server.cmd(&["HLEN", &key]).await, Value::Int(1));
    }
}

/// Every announcement of a step that changes who the master is has the sentinel asked, which goes through polling only
/// once a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_a_failover_has_the_sentinel_asked() {
    let scene = Scene::new().await;
    let sentinel = &scene.sentinel[0];
    let channels = [
        "+switch-master",
        "+promoted-slave",
        "+failover-state-reconf-slaves",
        "+failover-state-wait-promotion",
        "-failover-abort-slave-timeout",
    ];
    for channel in channels {
        let start = Instant::now();
        for _ in 0..40 {
            let before = sentinel.asked();
            scene.announce(channel);
            eventually("a question", async || sentinel.asked() > before).await;
        }
        let took = start.elapsed();
        println!("40 × {channel}: {took:?}");
        assert!(took < Duration::from_secs(20), "{channel}: {took:?}");
    }
}

/// What is announced of another service does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_of_other_services_are_ignored() {
    let scene = Scene::new().await;
    let sentinel = &scene.sentinel[0];
    let (before, start) = (sentinel.asked(), Instant::now());
    for _ in 0..100 {
        let message = "theirs 127.0.0.1 1 127.0.0.1 2";
        sentinel.server.publish("+switch-master", message);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let asked = sentinel.asked() - before;
    let polls = start.elapsed().as_secs() as usize + 2;
    assert!(asked <= polls, "{asked} questions, {polls} polls");
}

/// A replica that was told to become the master is used as soon as it has, before the sentinel knows: what the old one
/// is told from then on would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_is_used_before_its_sentinel_knows() {
    let scene = Scene::new().await;
    scene.works_at(&scene.old, "al").await;
    scene.begin_promotion();
    // For now it is a replica.
    let hellos = async || scene.replica.command_calls().await.get("hello").copied();
    let before = hellos().await;
    eventually("questions to the replica", async || {
        hellos().await > before.map(|calls| calls + 5)
    })
    .await;
    assert!(scene.uses(&scene.old));
    scene.works_at(&scene.old, "bo").await;

    scene.promote().await;
    eventually("the new master", async || scene.uses(&scene.replica)).await;
    scene.works_at(&scene.replica, "cy").await;

    // Then the sentinel knows, and nothing changes.
    scene.sentinel[0].change(|view| {
        view.epoch = 2;
        view.master = scene.replica.port();
        view.failover = Some("reconf_slaves");
    });
    scene.announce("+promoted-slave");
    let asked = scene.sentinel[0].asked();
    eventually("questions", async || scene.sentinel[0].asked() > asked + 2).await;
    assert!(scene.uses(&scene.replica));
    assert_eq!(scene.store.health().reconnects(), 1);
}

/// A failover that is given up leaves the store with the master that the sentinels name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_failover_leads_back() {
    let scene = Scene::new().await;
    scene.begin_promotion();
    scene.promote().await;
    eventually("the new master", async || scene.uses(&scene.replica)).await;
    scene.sentinel[0].change(|view| view.failover = None);
    scene.announce("-failover-abort-slave-timeout");
    eventually("the old master", async || scene.uses(&scene.old)).await;
    scene.works_at(&scene.old, "al").await;
}

/// So does a replica that dies, or becomes one again, before the sentinel knows that it was promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_that_is_lost_leads_back() {
    let scene = Scene::new().await;
    scene.begin_promotion();
    for dies in [false, true] {
        scene.promote().await;
        eventually("the new master", async || scene.uses(&scene.replica)).await;
        if dies {
            scene.replica.kill();
        } else {
            let port = scene.old.port().to_string();
            scene.replica.cmd(&["REPLICAOF", "127.0.0.1", &port]).await;
        }
        eventually("the old master", async || scene.uses(&scene.old)).await;
        scene
            .works_at(&scene.old, if dies { "al" } else { "bo" })
            .await;
    }
}

/// Nobody else's promotion counts: not of a server that the sentinel has not told to become one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announcement_alone_moves_nobody() {
    let scene = Scene::new().await;
    scene.promote().await;
    for _ in 0..5 {
        // The sentinel says that it leads no failover.
        scene.announce("+failover-state-wait-promotion");
        let asked = scene.sentinel[0].asked();
        eventually("questions", async || scene.sentinel[0].asked() > asked).await;
        assert!(scene.uses(&scene.old));
    }
    scene.works_at(&scene.old, "al").await;
}

/// An account at the sentinels that may hear of nothing but the switch works as before, and one that may hear of some
/// more hears of these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_are_denied_are_done_without() {
    let master = RedisServer::start(Flavor::Redis).await;
    let next = RedisServer::start(Flavor::Redis).await;
    let all = &[
        "+failover-state-wait-promotion",
        "+promoted-slave",
        "+failover-state-reconf-slaves",
        "-failover-abort-slave-timeout",
    ];
    for denied in [&all[..], &all[..1], &[]] {
        let view = View {
            epoch: 1,
            master: master.port(),
            denied,
            ..View::default()
        };
        let sentinel = [FakeSentinel::start(view).await];
        let store = patient_store(&url(&sentinel)).await;
        assert!(uses(&store, &master));
        let subscribed = sentinel[0].server.calls("SUBSCRIBE");
        assert_eq!(subscribed, if denied.is_empty() { 2 } else { 6 });
        sentinel[0].change(|view| (view.epoch, view.master) = (2, next.port()));
        let ports = [master.port(), next.port()];
        let message = format!("mymaster 127.0.0.1 {} 127.0.0.1 {}", ports[0], ports[1]);
        sentinel[0].server.publish("+switch-master", &message);
        eventually("the next master", async || uses(&store, &next)).await;
        store.check("al", &token_id(1)).await.unwrap();
    }
}

/// Real sentinels: the one that leads a planned failover does not get to know that its replica was promoted, and gives
/// up. Meanwhile the promoted one is used, and then the old one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_no_sentinel_sees_is_used_until_it_is_given_up() {
    let set = SentinelSet::start().await;
    let [leader, others @ ..] = set.sentinels() else {
        panic!("no sentinel");
    };
    let slow = ["SENTINEL", "SET", "mymaster", "failover-timeout", "15000"];
    leader.cmd(&slow).await;
    let store = patient_store(&set.url()).await;
    let (old, replicas) = (&set.nodes()[0], &set.nodes()[1..]);
    assert!(uses(&store, old));
    others.iter().for_each(RedisServer::freeze);
    for replica in replicas {
        // Sentinels log in as the default user.
        replica.cmd(&["ACL", "SETUSER", "default", "-info"]).await;
    }
    leader.cmd(&["SENTINEL", "FAILOVER", "mymaster"]).await;
    eventually("the promoted replica", async || {
        replicas.iter().any(|replica| uses(&store, replica))
    })
    .await;
    let named = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"];
    let named: (String, u16) = redis::from_redis_value(leader.cmd(&named).await).unwrap();
    assert_eq!(named.1, old.port(), "what the sentinel says");
    log_in(&store, "al", &token_id(1)).await;

    within(2 * LONG_TIMEOUT, "the old master", async || {
        uses(&store, old)
    })
    .await;
    log_in(&store, "bo", &token_id(1)).await;
    assert_eq!(old.cmd(&["HLEN", "tbs:tokens:{bo}"]).await, Value::Int(1));
}

/// Whether the store is connected to this server.
fn uses(store: &RedisStore, server: &RedisServer) -> bool {
    let health = store.health();
    let mut primaries = health.primaries().iter();
    health.is_connected() && primaries.all(|primary| primary.address() == address(server))
}
