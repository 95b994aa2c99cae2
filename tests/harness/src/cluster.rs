//! A cluster.

use super::{Flavor, Pki, RedisServer, admin::query, fail, poll, process::Launch, three};

const SLOTS: u16 = 16384;
const PRIMARIES: usize = 3;

/// Three primaries, each with a third of the slots, and a replica of each.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<RedisServer>,
    ids: Vec<String>,
    scheme: &'static str,
}

impl Cluster {
    /// Starts an empty cluster.
    pub async fn start(flavor: Flavor) -> Self {
        Self::start_with(flavor, None, &[]).await
    }

    /// The same, in which everything speaks TLS if there are certificates, with further arguments.
    pub async fn start_with(flavor: Flavor, tls: Option<&Pki>, args: &[&str]) -> Self {
        let own = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", "2000"],
            ["--cluster-replica-validity-factor", "0"],
            ["--repl-diskless-sync-delay", "0"],
        ];
        let args = [&own.concat(), args].concat();
        let node = Launch::node(flavor, tls, &args);
        let (primaries, replicas) = tokio::join!(three(node), three(node));
        let nodes: Vec<_> = primaries.into_iter().chain(replicas).collect();
        let mut ids = Vec::new();
        for node in &nodes {
            ids.push(query(&mut node.client().await, &["CLUSTER", "MYID"]).await);
        }
        let scheme = match tls {
            None => "redis-cluster",
            Some(_) => "rediss-cluster",
        };
        let cluster = Self { nodes, ids, scheme };
        cluster.form().await;
        cluster
    }

    /// The URL, without credentials.
    pub fn url(&self) -> String {
        let addresses = self.nodes.iter().map(RedisServer::port);
        let addresses: Vec<_> = addresses.map(|port| format!("127.0.0.1:{port}")).collect();
        format!("{}://{}", self.scheme, addresses.join("&node=")).replacen('&', "?", 1)
    }

    /// The nodes; the first three were started as the primaries, the fourth as the first one's replica.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The slot of a key.
    pub async fn slot_of(&self, key: &str) -> u16 {
        for node in self.running() {
            if let Some(slot) = node.ask(&["CLUSTER", "KEYSLOT", key]).await {
                return slot;
            }
        }
        self.fail("no node knows the slot of a key")
    }

    /// The primary of a key, by what all running nodes say.
    pub async fn primary_of(&self, key: &str) -> &RedisServer {
        self.primary_of_slot(self.slot_of(key).await).await
    }

    pub(super) async fn primary_of_slot(&self, slot: u16) -> &RedisServer {
        match poll(async || self.agreed_primary(slot).await).await {
            Some(primary) => primary,
            None => self.fail(&format!("no agreement on the primary of slot {slot}")),
        }
    }

    /// Waits until all running nodes name one other primary of a key, which serves it.
    pub async fn new_primary(&self, key: &str, old: &RedisServer) -> &RedisServer {
        let slot = self.slot_of(key).await;
        let primary = poll(async || {
            let new = self.agreed_primary(slot).await?;
            let _: i64 = new.ask(&["EXISTS", key]).await?;
            (new.port() != old.port() && new.is_master().await).then_some(new)
        });
        match primary.await {
            Some(primary) => primary,
            None => self.fail(&format!("no failover from port {}", old.port())),
        }
    }

    /// Waits until every node sees three primaries with a replica each, and all slots served.
    pub async fn wait_until_whole(&self) {
        let whole = poll(async || {
            for node in &self.nodes {
                sees_the_whole(node).await.filter(|&whole| whole)?;
            }
            Some(())
        });
        if whole.await.is_none() {
            self.fail("the cluster is not whole");
        }
    }

    /// Makes a cluster of nodes that are strangers to each other.
    async fn form(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            // They would find distinct epochs themselves, after a while.
            let epoch = (n + 1).to_string();
            node.cmd(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            if n < PRIMARIES {
                let bound = |n| usize::from(SLOTS) * n / PRIMARIES;
                let (first, last) = (bound(n).to_string(), (bound(n + 1) - 1).to_string());
                node.cmd(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            }
            for other in &self.nodes[..n] {
                let port = other.port().to_string();
                node.cmd(&["CLUSTER", "MEET", "127.0.0.1", &port]).await;
            }
        }
        for (replica, id) in self.nodes[PRIMARIES..].iter().zip(&self.ids) {
            // Refused until it has met that primary.
            let follows = poll(async || replica.ask(&["CLUSTER", "REPLICATE", id]).await);
            let Some(()) = follows.await else {
                self.fail("a replica does not find its primary");
            };
        }
        self.wait_until_whole().await;
    }

    /// The primary of a slot, if all running nodes name the same.
    pub(super) async fn agreed_primary(&self, slot: u16) -> Option<&RedisServer> {
        let mut owners = Vec::new();
        for node in self.running() {
            let nodes: String = node.ask(&["CLUSTER", "NODES"]).await?;
            owners.push(owner(&nodes, slot)?.to_owned());
        }
        owners.dedup();
        let [owner] = &owners[..] else { return None };
        let index = self.ids.iter().position(|id| id == owner)?;
        Some(&self.nodes[index])
    }

    fn running(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    pub(super) fn id(&self, node: &RedisServer) -> &str {
        let index = self.nodes.iter().position(|own| own.port() == node.port());
        &self.ids[index.expect("a node of this cluster")]
    }

    pub(super) fn fail(&self, problem: &str) -> ! {
        fail(&self.nodes, problem)
    }
}

/// Whether this node sees no fault.
async fn sees_the_whole(node: &RedisServer) -> Option<bool> {
    let cluster: String = node.ask(&["CLUSTER", "INFO"]).await?;
    let nodes: String = node.ask(&["CLUSTER", "NODES"]).await?;
    let replication: String = node.ask(&["INFO", "replication"]).await?;
    // Faults are further flags.
    let count = |role: &str| {
        let flags = nodes.lines().filter_map(|line| line.split(' ').nth(2));
        flags
            .filter(|flags| flags.trim_start_matches("myself,") == role)
            .count()
    };
    let connected = ["master_link_status:up", "state=online"];
    Some(
        cluster.contains("cluster_state:ok")
            && cluster.contains(&format!("cluster_slots_ok:{SLOTS}"))
            && count("master") == PRIMARIES
            && count("slave") == PRIMARIES
            && connected.iter().any(|&status| replication.contains(status)),
    )
}

/// The id of a slot's primary, in an answer to `CLUSTER NODES`.
fn owner(nodes: &str, slot: u16) -> Option<&str> {
    let covers = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        // A slot on its way has brackets and counts for its old primary, in a range as well.
        let bounds = first.parse::<u16>().ok().zip(last.parse().ok());
        bounds.is_some_and(|(first, last)| (first..=last).contains(&slot))
    };
    let mut lines = nodes.lines();
    let line = lines.find(|line| line.split(' ').skip(8).any(covers))?;
    line.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::Cluster;
    use crate::{Flavor, Pki, tls::tests::connect};
    use redis::RedisResult;

    #[tokio::test]
    async fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
        let cluster = Cluster::start(Flavor::Redis).await;
        let old = cluster.primary_of("key").await;
        old.cmd(&["SET", "key", "value"]).await;
        old.cmd(&["WAIT", "1", "5000"]).await;
        old.kill();
        let new = cluster.new_primary("key", old).await;
        assert_eq!(new.ask(&["GET", "key"]).await, Some("value".to_owned()));
        assert_eq!(cluster.primary_of("key").await.port(), new.port());
        old.restart().await;
        cluster.wait_until_whole().await;
        assert!(!old.is_master().await);
    }

    #[tokio::test]
    async fn a_cluster_may_speak_tls() {
        let pki = Pki::new();
        let cluster = Cluster::start_with(Flavor::Redis, Some(&pki), &[]).await;
        let primary = cluster.primary_of("key").await;
        let others = cluster
            .nodes()
            .iter()
            .filter(|node| node.port() != primary.port());
        for node in others {
            let mut client = connect(&node.url(), &pki, None).await.expect("TLS");
            let get = redis::cmd("GET").arg("key").take();
            let moved: RedisResult<String> = get.query_async(&mut client).await;
            let moved = moved.expect_err("another node's key");
            let here = format!("127.0.0.1:{}", primary.port());
            assert_eq!(moved.redirect_node().map(|(node, _)| node), Some(&here[..]));
        }
        let to = &cluster.nodes()[1];
        assert_ne!(to.port(), primary.port());
        primary.cmd(&["SET", "key", "value"]).await;
        cluster.migrate_slot(cluster.slot_of("key").await, to).await;
        assert_eq!(to.ask(&["GET", "key"]).await, Some("value".to_owned()));
    }
}
