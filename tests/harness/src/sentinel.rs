//! A master with replicas, and sentinels that watch over them.

use std::collections::HashMap;

use super::{Flavor, Pki, RedisServer, fail, poll, process::Launch, three};

/// The name under which the sentinels know the master.
const SERVICE: &str = "mymaster";

/// What a [`SentinelSet`] may have beside the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct SentinelOptions<'a> {
    /// The password of the default user, on every node.
    pub node_password: Option<&'a str>,
    /// The same on every sentinel.
    pub sentinel_password: Option<&'a str>,
    /// Whether everything speaks TLS.
    pub tls: Option<&'a Pki>,
    /// Further arguments of the nodes.
    pub node_args: &'a [&'a str],
}

/// A master, two replicas and three sentinels, of which two are enough for a failover.
#[derive(Debug)]
pub struct SentinelSet {
    nodes: [RedisServer; 3],
    sentinels: [RedisServer; 3],
    scheme: &'static str,
}

impl SentinelSet {
    /// Starts an empty set, in which everybody knows everybody else.
    pub async fn start() -> Self {
        Self::start_with(SentinelOptions::default()).await
    }

    /// As [`start`](Self::start), with passwords, TLS or further arguments.
    pub async fn start_with(options: SentinelOptions<'_>) -> Self {
        let nodes = start_nodes(options).await;
        let sentinels = start_sentinels(options, &nodes[0]).await;
        let scheme = match options.tls {
            None => "redis-sentinel",
            Some(_) => "rediss-sentinel",
        };
        let set = Self {
            nodes,
            sentinels,
            scheme,
        };
        set.wait_until_whole().await;
        set
    }

    /// The URL, without credentials.
    pub fn url(&self) -> String {
        let [first, second, third] = self.sentinels.each_ref().map(RedisServer::port);
        format!(
            "{}://127.0.0.1:{first}?node=127.0.0.1:{second}&node=127.0.0.1:{third}\
             &sentinelServiceName={SERVICE}",
            self.scheme
        )
    }

    /// The nodes; the first one was started as the master.
    ///
    /// None of them has a configuration file: a restarted one is what it was started as, until the
    /// sentinels tell it otherwise.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The three sentinels.
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The master, by what two sentinels at least say.
    pub async fn master(&self) -> &RedisServer {
        let master = poll(async || {
            let named = self.named_masters().await;
            self.nodes
                .iter()
                .find(|node| named.iter().filter(|&&port| port == node.port()).count() >= 2)
        });
        match master.await {
            Some(master) => master,
            None => self.fail("no two sentinels agree on a master"),
        }
    }

    /// Waits until all running sentinels name one other master, which knows that it is one.
    pub async fn new_master(&self, old: &RedisServer) -> &RedisServer {
        let master = poll(async || {
            let named = self.named_masters().await;
            let new = self
                .nodes
                .iter()
                .find(|node| named.contains(&node.port()))?;
            let agreed = named.iter().all(|&port| port == new.port());
            (agreed && new.port() != old.port() && new.is_master().await).then_some(new)
        });
        match master.await {
            Some(master) => master,
            None => self.fail(&format!("no failover from port {}", old.port())),
        }
    }

    /// Waits until every sentinel sees all others, and both replicas are in sync with the master.
    pub async fn wait_until_whole(&self) {
        let whole = poll(async || {
            for sentinel in &self.sentinels {
                sees_the_whole(sentinel).await.filter(|&whole| whole)?;
            }
            has_replicas(self.master().await).await
        });
        if whole.await.is_none() {
            self.fail("the sentinels do not see all others");
        }
    }

    /// The port that each running sentinel names; zero for none.
    async fn named_masters(&self) -> Vec<u16> {
        let mut ports = Vec::new();
        for sentinel in self.sentinels.iter().filter(|server| server.is_running()) {
            let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
            let address: Option<(String, u16)> = sentinel.ask(&command).await;
            ports.push(address.map_or(0, |(_, port)| port));
        }
        ports
    }

    fn fail(&self, problem: &str) -> ! {
        fail(self.nodes.iter().chain(&self.sentinels), problem)
    }
}

/// Starts a master and two replicas that follow it.
async fn start_nodes(options: SentinelOptions<'_>) -> [RedisServer; 3] {
    let mut args = vec!["--repl-diskless-sync-delay", "0"];
    if let Some(password) = options.node_password {
        args.extend(["--requirepass", password, "--masterauth", password]);
    }
    args.extend(options.node_args);
    let node = Launch::node(Flavor::Redis, options.tls, &args);
    let master = RedisServer::launch(node).await;
    let port = master.port().to_string();
    let args = [&args[..], &["--replicaof", "127.0.0.1", &port]].concat();
    let replica = Launch {
        args: &args,
        ..node
    };
    let (first, second) = tokio::join!(RedisServer::launch(replica), RedisServer::launch(replica));
    let nodes = [master, first, second];
    // What the sentinels see at first they see again after ten seconds only.
    let in_sync = poll(async || has_replicas(&nodes[0]).await);
    if in_sync.await.is_none() {
        fail(&nodes, "the replicas do not follow");
    }
    nodes
}

/// Starts three sentinels.
async fn start_sentinels(options: SentinelOptions<'_>, master: &RedisServer) -> [RedisServer; 3] {
    let port = master.port().to_string();
    let mut args = vec!["--sentinel", "monitor", SERVICE, "127.0.0.1", &port, "2"];
    for (setting, value) in [
        ("down-after-milliseconds", "1000"),
        ("failover-timeout", "3000"),
        ("parallel-syncs", "1"),
    ] {
        args.extend(["--sentinel", setting, SERVICE, value]);
    }
    if let Some(password) = options.node_password {
        args.extend(["--sentinel", "auth-pass", SERVICE, password]);
    }
    if let Some(password) = options.sentinel_password {
        args.extend(["--requirepass", password]);
        args.extend(["--sentinel", "sentinel-pass", password]);
    }
    three(Launch {
        sentinel: true,
        ..Launch::node(Flavor::Redis, options.tls, &args)
    })
    .await
}

/// Whether two replicas are in sync with this master.
async fn has_replicas(master: &RedisServer) -> Option<()> {
    let info: String = master.ask(&["INFO", "replication"]).await?;
    (info.matches("state=online").count() == 2).then_some(())
}

/// Whether this sentinel is connected to everybody, and sees no fault.
async fn sees_the_whole(sentinel: &RedisServer) -> Option<bool> {
    type Instance = HashMap<String, String>;
    let master: Instance = sentinel.ask(&["SENTINEL", "MASTER", SERVICE]).await?;
    let replicas: Vec<Instance> = sentinel.ask(&["SENTINEL", "REPLICAS", SERVICE]).await?;
    let others: Vec<Instance> = sentinel.ask(&["SENTINEL", "SENTINELS", SERVICE]).await?;
    // Faults are further flags.
    let all_are = |flags, instances: &[Instance]| instances.iter().all(|i| i["flags"] == flags);
    Some(
        master["flags"] == "master"
            && replicas.len() == 2
            && all_are("slave", &replicas)
            && others.len() == 2
            && all_are("sentinel", &others),
    )
}

#[cfg(test)]
mod tests {
    use super::{SentinelOptions, SentinelSet};
    use crate::{Pki, tls::tests::connect};
    use redis::{Cmd, RedisResult};

    #[tokio::test]
    async fn a_killed_master_is_replaced_and_comes_back_as_a_replica() {
        let set = SentinelSet::start().await;
        let old = set.master().await;
        assert_eq!(old.port(), set.nodes()[0].port());
        old.cmd(&["SET", "key", "value"]).await;
        old.cmd(&["WAIT", "2", "5000"]).await;
        old.kill();
        let new = set.new_master(old).await;
        assert_eq!(new.ask(&["GET", "key"]).await, Some("value".to_owned()));
        assert_eq!(set.master().await.port(), new.port());

        // Empty, and a master by its own account.
        old.restart().await;
        assert!(old.is_master().await);
        assert_eq!(old.ask(&["EXISTS", "key"]).await, Some(0));
        set.wait_until_whole().await;
        assert!(!old.is_master().await);
        assert_eq!(old.ask(&["GET", "key"]).await, Some("value".to_owned()));
    }

    #[tokio::test]
    async fn a_restarted_sentinel_knows_what_it_knew() {
        let set = SentinelSet::start().await;
        let sentinel = &set.sentinels()[0];
        sentinel.kill();
        set.nodes()[0].freeze();
        let new = set.new_master(&set.nodes()[0]).await;
        sentinel.restart().await;
        // It goes on from its file and hears of the failover from the others.
        assert_eq!(set.new_master(&set.nodes()[0]).await.port(), new.port());
    }

    #[tokio::test]
    async fn a_set_may_have_passwords_and_speak_tls() {
        let pki = Pki::new();
        let set = SentinelSet::start_with(SentinelOptions {
            node_password: Some("node's"),
            sentinel_password: Some("sentinel's"),
            tls: Some(&pki),
            ..SentinelOptions::default()
        })
        .await;
        let old = set.master().await;
        old.kill();
        let new = set.new_master(old).await;
        for (server, command, password) in [
            (new, &["PING"][..], "node's"),
            (&set.sentinels()[0], &["SENTINEL", "MYID"], "sentinel's"),
        ] {
            let mut client = connect(&server.url(), &pki, None).await.expect("TLS");
            let mut run = async |command: &[&str]| -> RedisResult<String> {
                let mut cmd = Cmd::new();
                cmd.arg(command).query_async(&mut client).await
            };
            let refused = run(command).await.expect_err("no password");
            assert_eq!(refused.code(), Some("NOAUTH"));
            run(&["AUTH", password]).await.expect("the password");
            run(command).await.expect("an answer");
        }
    }
}
