//! Nodes that are known by host name, and whose name leads to another server, as after a node was replaced.

use std::time::{Duration, SystemTime};

use tower_bearer_session::{RedisStore, RedisStoreBuilder, Token, TokenManager};

use super::{
    super::{LONG_TIMEOUT, eventually, within},
    ask, sessions_key,
};
use crate::harness::{Flavor, Proxy, RedisServer};

/// The stores have a user of their own, so that the servers can tell them from the harness.
const APP: [&str; 6] = ["--user", "app", "on", ">pw", "~*", "+@all"];

/// Much longer than a store may take to follow a name.
const LIMIT: Duration = Duration::from_secs(15);

/// Two servers, each of which holds all slots of a cluster of its own and announces the forwarder as its endpoint; the
/// forwarder leads to the first one.
struct Scene {
    old: RedisServer,
    new: RedisServer,
    forwarder: Proxy,
}

/// A store that reaches the first server, and two sessions that the second server has as well.
struct Sessions {
    store: RedisStore,
    manager: TokenManager,
    /// Lives until [`revoke`](Scene::revoke).
    revoked: Token,
    live: Token,
}

impl Scene {
    /// The servers announce this host.
    async fn new(host: &str) -> Self {
        let forwarder = Proxy::start(0).await;
        let port = forwarder.port().to_string();
        let endpoint = match host {
            "127.0.0.1" => ["--cluster-announce-ip", host].to_vec(),
            name => [
                ["--cluster-announce-hostname", name],
                ["--cluster-preferred-endpoint-type", "hostname"],
            ]
            .concat(),
        };
        let args = [
            &APP[..],
            &["--cluster-enabled", "yes", "--cluster-announce-port", &port],
            &endpoint,
        ]
        .concat();
        let start = || RedisServer::start_with(Flavor::Redis, &args);
        let (old, new) = tokio::join!(start(), start());
        for server in [&old, &new] {
            server
                .cmd(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"])
                .await;
            eventually("a cluster", async || {
                let info: String = ask(server, &["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok")
            })
            .await;
        }
        forwarder.redirect(old.port());
        Self {
            old,
            new,
            forwarder,
        }
    }

    /// A store that begins at this host, of the forwarder.
    async fn sessions(
        &self,
        host: &str,
        configure: impl FnOnce(RedisStoreBuilder) -> RedisStoreBuilder,
    ) -> Sessions {
        let url = format!("redis-cluster://app:pw@{host}:{}", self.forwarder.port());
        let builder = RedisStore::builder(url).deadline(Duration::from_secs(3));
        let builder = configure(builder.connect_timeout(LONG_TIMEOUT));
        let store = builder.connect().await.unwrap();
        let endpoint = format!("{host}:{}", self.forwarder.port());
        assert_eq!(store.health().primaries()[0].address(), endpoint);
        let manager = TokenManager::new(store.clone());
        let revoked = manager.set_token("al", None).await.unwrap();
        let live = manager.set_token("bo", None).await.unwrap();
        let port = self.new.port().to_string();
        for user in ["al", "bo"] {
            let to = ["MIGRATE", "127.0.0.1", &port, &sessions_key(user), "0"];
            let how = ["5000", "COPY", "AUTH2", "harness", "harness"];
            self.old.cmd(&[&to[..], &how].concat()).await;
        }
        Sessions {
            store,
            manager,
            revoked,
            live,
        }
    }

    /// Lets the name lead to the second server; flows to the first one go on.
    fn move_name(&self) {
        self.forwarder.redirect(self.new.port());
    }

    /// Logs out at the second server, as another service does.
    async fn revoke(&self) {
        let deleted: u64 = ask(&self.new, &["DEL", &sessions_key("al")]).await;
        assert_eq!(deleted, 1);
    }
}

impl Sessions {
    async fn is_live(&self, token: &Token) -> bool {
        let user = self.manager.check_token(token.expose_secret()).await;
        user.expect("an answer").is_some()
    }
}

/// The first server goes on serving; under load. Nothing that is asked meanwhile fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_store_follows_the_name_of_a_node() {
    let scene = Scene::new("localhost").await;
    let sessions = scene.sessions("localhost", |builder| builder).await;
    scene.move_name();
    scene.revoke().await;
    let took = within(LIMIT, "the move is noticed", async || {
        assert!(sessions.is_live(&sessions.live).await);
        !sessions.is_live(&sessions.revoked).await
    })
    .await;
    println!("moved after {took:?}");
    let login = sessions.manager.set_token("cy", None).await.unwrap();
    assert!(sessions.is_live(&login).await);
    let logins: u64 = ask(&scene.new, &["HLEN", &sessions_key("cy")]).await;
    assert_eq!(logins, 1);
    let reconnects = sessions.store.health().reconnects();
    assert_eq!(reconnects, 0, "no connection failed");
}

/// The same with an idle store: its first request afterwards goes to the second server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_store_follows_the_name_of_a_node() {
    let scene = Scene::new("localhost").await;
    let sessions = scene.sessions("localhost", |builder| builder).await;
    let begun = SystemTime::now();
    scene.move_name();
    scene.revoke().await;
    within(LIMIT, "a new connection", async || {
        let connected_at = sessions.store.health().primaries()[0].connected_at();
        connected_at.is_some_and(|at| at > begun)
    })
    .await;
    assert!(!sessions.is_live(&sessions.revoked).await);
    assert!(sessions.is_live(&sessions.live).await);
}

/// An IP address does not change its server while that one serves: its connections last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_node_known_by_ip_address_do_not_age() {
    let scene = Scene::new("127.0.0.1").await;
    let sessions = scene.sessions("127.0.0.1", |builder| {
        builder.max_connection_age(Duration::from_millis(100))
    });
    let sessions = sessions.await;
    let connected_at = || sessions.store.health().primaries()[0].connected_at();
    let before = connected_at();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(connected_at(), before);
}

/// A node that says that the cluster is down may have been replaced: the store connects anew, whatever the age of
/// the connection and however the node is known, but not for every answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_says_that_the_cluster_is_down_is_connected_to_anew() {
    for host in ["localhost", "127.0.0.1"] {
        let scene = Scene::new(host).await;
        let sessions = scene.sessions(host, |builder| {
            builder.max_connection_age(LONG_TIMEOUT * 100)
        });
        let sessions = sessions.await;
        let connections = async |server| -> u64 {
            let info: String = ask(server, &["INFO", "stats"]).await;
            let mut lines = info.lines();
            let count = lines.find_map(|line| line.strip_prefix("total_connections_received:"));
            count.and_then(|count| count.parse().ok()).unwrap()
        };
        let check = async || {
            let token = sessions.live.expose_secret();
            sessions.manager.check_token(token).await
        };
        scene.old.cmd(&["CLUSTER", "DELSLOTSRANGE", "0", "0"]).await;
        eventually("a cluster that is down", async || check().await.is_err()).await;

        let (before, start) = (connections(&scene.old).await, tokio::time::Instant::now());
        let mut failed = 0;
        while start.elapsed() < Duration::from_secs(4) {
            failed += u64::from(check().await.is_err());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Besides those of the store: that of this very question, and of seeds that are asked for the map.
        let made = connections(&scene.old).await - before;
        let allowed = 2 * start.elapsed().as_secs() + 2;
        println!("{made} connections for {failed} failures; {allowed} allowed");
        assert!(failed > 2 * allowed, "{failed} failures only");
        assert!(made <= allowed, "{made} > {allowed}");

        scene.move_name();
        let took = within(LIMIT, "an answer of the new server", async || {
            check().await.is_ok()
        })
        .await;
        println!("fine again after {took:?}");
        assert!(sessions.is_live(&sessions.live).await);
    }
}
