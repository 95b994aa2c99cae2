//! A MariaDB server, which loses nothing that it has acknowledged.

use std::time::Duration;

use tokio::time::sleep;
use tower_bearer_session::MySqlStore;

use crate::{
    deployment::{Deployment, a_while},
    harness::{MariaDb, Proxy},
    random::Random,
    standalone::fail_network,
};

pub(crate) struct Maria {
    server: MariaDb,
    /// One for each service.
    proxies: [Proxy; 2],
}

impl Deployment for Maria {
    type Store = MySqlStore;

    const NAME: &'static str = "mariadb";
    const MAY_LOSE: bool = false;
    /// The next operation closes the idle connections if all of them are older than five seconds.
    const CALM: Duration = Duration::from_secs(6);
    const FAULTS: &'static [&'static str] = &[
        "kill",
        "freeze",
        "cut",
        "delay",
        "black hole",
        "refuse",
        "kill connections",
        "read only",
    ];

    async fn start() -> Self {
        let server = MariaDb::start().await;
        let proxies = [
            Proxy::start(server.port()).await,
            Proxy::start(server.port()).await,
        ];
        let store = MySqlStore::builder(server.url()).connect().await;
        store.expect("a store").migrate().await.expect("tables");
        Self { server, proxies }
    }

    fn url(&self, service: usize) -> String {
        let port = self.proxies[service].port();
        format!("mysql://app:hunter2@127.0.0.1:{port}/sessions")
    }

    async fn connect(url: String) -> MySqlStore {
        MySqlStore::connect(url).await.expect("a store")
    }

    async fn fail(&self, fault: &str, random: &mut Random) {
        let server = &self.server;
        let time = a_while(random);
        match fault {
            // Its data stays.
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
            "kill connections" => server.end_connections().await,
            "read only" => {
                server.sql("SET GLOBAL read_only = 1").await;
                sleep(time).await;
                server.sql("SET GLOBAL read_only = 0").await;
            }
            network => fail_network(random.pick(&self.proxies), network, time).await,
        }
    }

    fn loses(fault: &str) -> bool {
        // A commit is visible a moment before it is written to the log, and one that hangs is done later: both are of
        // operations that have failed.
        ["kill", "freeze"].contains(&fault)
    }
}
