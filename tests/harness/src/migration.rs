//! Moving slots of a cluster that is in use.

use redis::Value;

use super::{Cluster, RedisServer, admin::query, poll};

impl Cluster {
    /// Moves a slot to another primary, key by key, while it is in use.
    pub async fn migrate_slot(&self, slot: u16, to: &RedisServer) {
        self.begin_migration(slot, to).await.finish().await;
    }

    /// The same step by step: to begin with, the old primary says `ASK` for keys it does not have.
    pub async fn begin_migration<'a>(&'a self, slot: u16, to: &'a RedisServer) -> Migration<'a> {
        let from = self.primary_of_slot(slot).await;
        let number = slot.to_string();
        let (from_id, to_id) = (self.id(from), self.id(to));
        for (node, state, other) in [(to, "IMPORTING", from_id), (from, "MIGRATING", to_id)] {
            node.cmd(&["CLUSTER", "SETSLOT", &number, state, other])
                .await;
        }
        Migration {
            cluster: self,
            slot,
            from,
            to,
        }
    }
}

/// A slot on its way from one primary to another.
#[derive(Debug)]
pub struct Migration<'a> {
    cluster: &'a Cluster,
    slot: u16,
    from: &'a RedisServer,
    to: &'a RedisServer,
}

impl Migration<'_> {
    /// Moves so many keys at most; tells how many.
    pub async fn move_keys(&self, most: usize) -> usize {
        let (slot, most) = (self.slot.to_string(), most.to_string());
        let mut from = self.from.client().await;
        let command = ["CLUSTER", "GETKEYSINSLOT", &slot, &most];
        let keys: Vec<Vec<u8>> = query(&mut from, &command).await;
        if !keys.is_empty() {
            let port = self.to.port().to_string();
            let command = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000"];
            let login = ["AUTH2", "harness", "harness", "KEYS"];
            let command = command.into_iter().chain(login).map(str::as_bytes);
            let command: Vec<_> = command.chain(keys.iter().map(Vec::as_slice)).collect();
            let _: Value = query(&mut from, &command).await;
        }
        keys.len()
    }

    /// Moves the rest and gives the slot to its new primary; returns when every node knows.
    pub async fn finish(self) {
        while self.move_keys(1).await > 0 {}
        let (slot, to) = (self.slot.to_string(), self.cluster.id(self.to));
        for node in [self.to, self.from] {
            node.cmd(&["CLUSTER", "SETSLOT", &slot, "NODE", to]).await;
        }
        let known = poll(async || {
            let primary = self.cluster.agreed_primary(self.slot).await?;
            (primary.port() == self.to.port()).then_some(())
        });
        if known.await.is_none() {
            self.cluster.fail("not every node knows of a migrated slot");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Cluster, Flavor, RedisServer};
    use redis::{
        ErrorKind, RedisResult,
        ServerErrorKind::{self, Ask, Moved},
    };

    #[tokio::test]
    async fn redis_redirects_while_a_slot_moves() {
        clients_are_redirected(Flavor::Redis).await;
    }

    #[tokio::test]
    async fn valkey_redirects_while_a_slot_moves() {
        clients_are_redirected(Flavor::Valkey).await;
    }

    async fn clients_are_redirected(flavor: Flavor) {
        let cluster = Cluster::start(flavor).await;
        let slot = cluster.slot_of("{x}").await;
        let from = cluster.primary_of("{x}").await;
        let mut nodes = cluster.nodes().iter();
        let to = nodes
            .find(|node| node.port() != from.port())
            .expect("others");
        let keys = ["{x}1", "{x}2", "{x}3"];
        for key in keys {
            from.cmd(&["SET", key, key]).await;
        }
        assert_eq!(redirects(to, &keys).await, [Some(Moved); 3]);

        let migration = cluster.begin_migration(slot, to).await;
        assert_eq!(redirects(from, &keys).await, [None; 3]);
        assert_eq!(redirects(from, &["{x}4"]).await, [Some(Ask)]);
        assert_eq!(migration.move_keys(2).await, 2);
        let mut redirects_on_the_way = redirects(from, &keys).await;
        redirects_on_the_way.sort_by_key(Option::is_some);
        assert_eq!(redirects_on_the_way, [None, Some(Ask), Some(Ask)]);
        migration.finish().await;
        assert_eq!(redirects(from, &keys).await, [Some(Moved); 3]);
        assert_eq!(redirects(to, &keys).await, [None; 3]);
        assert_eq!(cluster.primary_of("{x}").await.port(), to.port());
        cluster.wait_until_whole().await;
    }

    /// How a node redirects those who want these keys of it.
    async fn redirects(node: &RedisServer, keys: &[&str]) -> Vec<Option<ServerErrorKind>> {
        let mut client = node.client().await;
        let mut redirects = Vec::new();
        for key in keys {
            let command = redis::cmd("GET").arg(key).take();
            let value: RedisResult<String> = command.query_async(&mut client).await;
            redirects.push(match value {
                Ok(value) => {
                    assert_eq!(value, *key);
                    None
                }
                Err(error) => match error.kind() {
                    ErrorKind::Server(kind) => Some(kind),
                    _ => panic!("{error}"),
                },
            });
        }
        redirects
    }
}
