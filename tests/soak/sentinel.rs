//! A master with two replicas, and three sentinels.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_bearer_session::RedisStore;

use crate::{
    deployment::{Deployment, a_while},
    harness::{RedisServer, SentinelSet},
    random::Random,
    standalone::{kill_clients, pause_clients},
};

pub(crate) struct Sentinel(SentinelSet);

impl Deployment for Sentinel {
    type Store = RedisStore;

    const NAME: &'static str = "sentinel";
    const MAY_LOSE: bool = true;
    const CALM: Duration = Duration::from_secs(1);
    const FAULTS: &'static [&'static str] = &[
        "kill master",
        "planned failover",
        "freeze master",
        "freeze replica",
        "kill replica",
        "freeze sentinel",
        "kill sentinel",
        "kill clients",
        "pause clients",
    ];

    async fn start() -> Self {
        Self(SentinelSet::start().await)
    }

    fn url(&self, _: usize) -> String {
        self.0.url()
    }

    /// Both replicas confirm logouts and refreshes, so every node knows of them.
    async fn connect(url: String) -> RedisStore {
        let store = RedisStore::builder(url).confirm_replicas(2, Duration::from_millis(500));
        store.connect().await.expect("a store")
    }

    async fn fail(&self, fault: &str, random: &mut Random) {
        let set = &self.0;
        let time = a_while(random);
        let master = set.master().await;
        let replicas = set
            .nodes()
            .iter()
            .filter(|node| node.port() != master.port());
        let replica = *random.pick(&replicas.collect::<Vec<_>>());
        let sentinel = random.pick(set.sentinels());
        match fault {
            // It comes back without its data, and only when it is no master any more: otherwise its replicas would
            // follow it into the void.
            "kill master" => {
                master.kill();
                set.new_master(master).await;
                master.restart().await;
            }
            "planned failover" => planned_failover(set, master, sentinel).await,
            "freeze master" => freeze(master, time).await,
            "freeze replica" => freeze(replica, time).await,
            "freeze sentinel" => freeze(sentinel, time).await,
            "kill replica" => restart(replica, time / 2).await,
            "kill sentinel" => restart(sentinel, time / 2).await,
            "kill clients" => kill_clients(master).await,
            "pause clients" => pause_clients(master, time).await,
            other => panic!("{other} is no fault"),
        }
        set.wait_until_whole().await;
    }

    fn loses(fault: &str) -> bool {
        ["kill master", "planned failover"].contains(&fault)
    }

    async fn primaries(&self) -> Vec<u16> {
        vec![self.0.master().await.port()]
    }
}

/// Lets another node become the master.
async fn planned_failover(set: &SentinelSet, master: &RedisServer, sentinel: &RedisServer) {
    let failover = redis::cmd("SENTINEL").arg(&["FAILOVER", "mymaster"]).take();
    for _ in 0..6 {
        // Refused while one is under way, and given up on a busy machine.
        let _ = failover.exec_async(&mut sentinel.client().await).await;
        if timeout(Duration::from_secs(10), set.new_master(master))
            .await
            .is_ok()
        {
            return;
        }
    }
    panic!("no planned failover");
}

/// Stops a server for a while, with its connections open.
pub(crate) async fn freeze(server: &RedisServer, time: Duration) {
    server.freeze();
    sleep(time).await;
    server.thaw();
}

/// Kills a server, and starts it again after a while.
pub(crate) async fn restart(server: &RedisServer, time: Duration) {
    server.kill();
    sleep(time).await;
    server.restart().await;
}
