//! A cluster of three primaries with a replica each.

use std::time::Duration;

use redis::{Value, from_redis_value};
use tokio::time::timeout;
use tower_bearer_session::RedisStore;

use crate::{
    deployment::{Deployment, a_while},
    growth::Spare,
    harness::{Cluster, Flavor, RedisServer},
    random::Random,
    sentinel::{freeze, restart},
    standalone::{kill_clients, pause_clients},
};

pub(crate) struct Clustered(Cluster);

impl Deployment for Clustered {
    type Store = RedisStore;

    const NAME: &'static str = "cluster";
    const MAY_LOSE: bool = true;
    const CALM: Duration = Duration::from_secs(1);
    /// Each store keeps its three connections to a node for a minute after it was a primary, of which there are three.
    const SPARE: Spare = Spare::FEW.and_connections(2 * 3 * 3);
    const FAULTS: &'static [&'static str] = &[
        "kill primary",
        "planned failover",
        "freeze primary",
        "freeze replica",
        "kill replica",
        "move slot",
        "kill clients",
        "pause clients",
    ];

    async fn start() -> Self {
        Self(Cluster::start(Flavor::Redis).await)
    }

    fn url(&self, _: usize) -> String {
        self.0.url()
    }

    /// The replica confirms logouts and refreshes.
    async fn connect(url: String) -> RedisStore {
        let store = RedisStore::builder(url).confirm_replicas(1, Duration::from_millis(500));
        store.connect().await.expect("a store")
    }

    async fn fail(&self, fault: &str, random: &mut Random) {
        let cluster = &self.0;
        let time = a_while(random);
        // A key that one of the workers' users could have.
        let key = format!(
            "tbs:tokens:{{worker {}, user {}}}",
            random.below(6),
            random.below(3)
        );
        let primary = cluster.primary_of(&key).await;
        let (primaries, replicas) = self.roles().await;
        let replica = *random.pick(&replicas);
        match fault {
            // It comes back without its data, when it is no primary any more.
            "kill primary" => {
                primary.kill();
                cluster.new_primary(&key, primary).await;
                primary.restart().await;
            }
            "planned failover" => planned_failover(&self.0, replica).await,
            "freeze primary" => freeze(primary, time).await,
            "freeze replica" => freeze(replica, time).await,
            "kill replica" => restart(replica, time / 2).await,
            "move slot" => {
                let others = primaries
                    .into_iter()
                    .filter(|it| it.port() != primary.port());
                let to = *random.pick(&others.collect::<Vec<_>>());
                cluster.migrate_slot(cluster.slot_of(&key).await, to).await;
            }
            "kill clients" => kill_clients(primary).await,
            "pause clients" => pause_clients(primary, time).await,
            other => panic!("{other} is no fault"),
        }
        cluster.wait_until_whole().await;
    }

    fn loses(fault: &str) -> bool {
        ["kill primary", "planned failover"].contains(&fault)
    }

    async fn primaries(&self) -> Vec<u16> {
        let (primaries, _) = self.roles().await;
        primaries.into_iter().map(RedisServer::port).collect()
    }
}

impl Clustered {
    /// The primaries and the replicas, by their own account.
    async fn roles(&self) -> (Vec<&RedisServer>, Vec<&RedisServer>) {
        let (mut primaries, mut replicas) = (Vec::new(), Vec::new());
        for node in self.0.nodes() {
            match is_primary(node).await {
                true => primaries.push(node),
                false => replicas.push(node),
            }
        }
        (primaries, replicas)
    }
}

/// Lets a replica take over.
async fn planned_failover(cluster: &Cluster, replica: &RedisServer) {
    let failover = redis::cmd("CLUSTER").arg("FAILOVER").take();
    for _ in 0..6 {
        // Given up on a busy machine.
        let _ = failover.exec_async(&mut replica.client().await).await;
        let taken_over = async {
            while !is_primary(replica).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(Duration::from_secs(10), taken_over).await.is_ok() {
            return cluster.wait_until_whole().await;
        }
    }
    panic!("no planned failover");
}

async fn is_primary(server: &RedisServer) -> bool {
    let role: Vec<Value> = from_redis_value(server.cmd(&["ROLE"]).await).expect("a role");
    role[0] == Value::BulkString(b"master".into())
}
