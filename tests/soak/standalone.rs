//! One server, which loses nothing that it has acknowledged.

use std::time::Duration;

use tokio::time::sleep;
use tower_bearer_session::RedisStore;

use crate::{
    deployment::{Deployment, a_while},
    harness::{Flavor, Proxy, RedisServer},
    random::Random,
};

/// A server that is killed comes back with all that it has acknowledged.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

pub(crate) struct Standalone {
    server: RedisServer,
    /// One for each service.
    proxies: [Proxy; 2],
}

impl Deployment for Standalone {
    type Store = RedisStore;

    const NAME: &'static str = "standalone";
    const MAY_LOSE: bool = false;
    const CALM: Duration = Duration::from_secs(1);
    const FAULTS: &'static [&'static str] = &[
        "kill",
        "freeze",
        "cut",
        "delay",
        "black hole",
        "refuse",
        "kill clients",
        "pause clients",
        "flush scripts",
        "demote",
    ];

    async fn start() -> Self {
        let server = RedisServer::start_with(Flavor::Redis, &DURABLE).await;
        let proxies = [
            Proxy::start(server.port()).await,
            Proxy::start(server.port()).await,
        ];
        Self { server, proxies }
    }

    fn url(&self, service: usize) -> String {
        format!("redis://127.0.0.1:{}", self.proxies[service].port())
    }

    async fn connect(url: String) -> RedisStore {
        RedisStore::connect(url).await.expect("a store")
    }

    async fn fail(&self, fault: &str, random: &mut Random) {
        let server = &self.server;
        let time = a_while(random);
        match fault {
            "kill" => {
                server.kill();
                sleep(time / 2).await;
                server.restart().await;
            }
            "freeze" => {
                server.freeze();
                sleep(time).await;
                server.thaw();
            }
            "kill clients" => kill_clients(server).await,
            "pause clients" => pause_clients(server, time).await,
            "flush scripts" => drop(server.cmd(&["SCRIPT", "FLUSH"]).await),
            // A replica of nobody keeps what it has.
            "demote" => {
                server.cmd(&["REPLICAOF", "127.0.0.1", "1"]).await;
                sleep(time).await;
                server.cmd(&["REPLICAOF", "NO", "ONE"]).await;
            }
            network => fail_network(random.pick(&self.proxies), network, time).await,
        }
    }

    fn loses(fault: &str) -> bool {
        ["kill", "freeze"].contains(&fault)
    }
}

/// Closes the connections of all clients.
pub(crate) async fn kill_clients(server: &RedisServer) {
    server.cmd(&["CLIENT", "KILL", "TYPE", "normal"]).await;
}

/// The server answers nothing for a while, though it is there.
pub(crate) async fn pause_clients(server: &RedisServer, time: Duration) {
    let millis = time.as_millis().to_string();
    server.cmd(&["CLIENT", "PAUSE", &millis, "ALL"]).await;
    sleep(time).await;
}

/// Makes the network of one service fail.
pub(crate) async fn fail_network(proxy: &Proxy, fault: &str, time: Duration) {
    match fault {
        "cut" => proxy.drop_connections().await,
        "delay" => {
            proxy.set_delay(time / 5);
            sleep(time).await;
            proxy.set_delay(Duration::ZERO);
        }
        "black hole" => {
            proxy.black_hole_existing();
            sleep(time).await;
            // What was lost on the way does not arrive later.
            proxy.drop_connections().await;
        }
        "refuse" => {
            proxy.refuse(true);
            proxy.drop_connections().await;
            sleep(time).await;
            proxy.refuse(false);
        }
        other => panic!("{other} is no fault"),
    }
}
