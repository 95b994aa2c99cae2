//! What tests ask a server, or tell it, past the crate under test.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use redis::{Cmd, FromRedisValue, RedisResult, ToRedisArgs, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::RedisServer;

impl RedisServer {
    /// A new connection of the harness's own user, past this crate and past any password.
    pub async fn client(&self) -> MultiplexedConnection {
        match self.connect().await {
            Ok(connection) => connection,
            Err(error) => self.fail(&format!("cannot connect: {error}")),
        }
    }

    /// Runs one command; panics when the server answers with an error.
    pub async fn cmd(&self, args: &[&str]) -> Value {
        query(&mut self.client().await, args).await
    }

    /// What the server answers, unless it is away, hangs or refuses.
    pub(super) async fn ask<T: FromRedisValue>(&self, args: &[&str]) -> Option<T> {
        let answer = async {
            let mut connection = self.connect().await?;
            Cmd::new().arg(args).query_async(&mut connection).await
        };
        let answer: RedisResult<T> = timeout(Duration::from_secs(1), answer).await.ok()?;
        answer.ok()
    }

    /// Whether the server takes itself for a master.
    pub(super) async fn is_master(&self) -> bool {
        let role: Option<Vec<Value>> = self.ask(&["ROLE"]).await;
        role.is_some_and(|role| role[0] == Value::BulkString(b"master".into()))
    }

    /// How often each command was called since the start, such as `hget` or `client|setinfo`.
    ///
    /// The harness's own calls count as well.
    pub async fn command_calls(&self) -> BTreeMap<String, u64> {
        let info: String = query(&mut self.client().await, &["INFO", "commandstats"]).await;
        info.lines()
            .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
            .map(|(name, rest)| {
                let calls = rest.split(',').next().and_then(|calls| calls.parse().ok());
                (name.to_owned(), calls.expect("a number of calls"))
            })
            .collect()
    }

    /// Every key, every field and every value in every database.
    pub async fn dump_everything(&self) -> Vec<Vec<u8>> {
        let mut connection = self.client().await;
        let keyspace: String = query(&mut connection, &["INFO", "keyspace"]).await;
        let mut dump = Vec::new();
        for line in keyspace.lines() {
            let Some((db, _)) = line.strip_prefix("db").and_then(|db| db.split_once(':')) else {
                continue;
            };
            let _: () = query(&mut connection, &["SELECT", db]).await;
            for key in all_keys(&mut connection).await {
                let kind: String = query(&mut connection, &[&b"TYPE"[..], &key]).await;
                let read: &[&[u8]] = match kind.as_str() {
                    "string" => &[b"GET", &key],
                    "hash" => &[b"HGETALL", &key],
                    "list" => &[b"LRANGE", &key, b"0", b"-1"],
                    "set" => &[b"SMEMBERS", &key],
                    "zset" => &[b"ZRANGE", &key, b"0", b"-1"],
                    // Expired since the scan.
                    "none" => continue,
                    other => panic!("the harness cannot dump a {other}"),
                };
                match query(&mut connection, read).await {
                    Value::BulkString(value) => dump.push(value),
                    Value::Array(values) => {
                        let values = values.into_iter().map(Vec::from_redis_value);
                        dump.extend(values.map(|value| value.expect("a string")));
                    }
                    Value::Nil => {}
                    other => panic!("the harness cannot dump {other:?}"),
                }
                dump.push(key);
            }
        }
        dump
    }
}

/// Runs a command; panics when it fails.
pub(super) async fn query<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    args: &[impl ToRedisArgs + Sync],
) -> T {
    let mut command = Cmd::new();
    command.arg(args);
    match command.query_async(connection).await {
        Ok(answer) => answer,
        Err(error) => panic!("the harness's command failed: {error}"),
    }
}

/// Every key of the connection's database.
async fn all_keys(connection: &mut MultiplexedConnection) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let batch: Vec<Vec<u8>>;
        (cursor, batch) = query(connection, &["SCAN", &cursor, "COUNT", "1000"]).await;
        keys.extend(batch);
        if cursor == "0" {
            return keys;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::query;
    use crate::{Flavor, RedisServer};
    use redis::{Client, RedisResult, Value};

    #[tokio::test]
    async fn the_harness_gets_past_a_password() {
        let server = RedisServer::start_with(Flavor::Redis, &["--requirepass", "secret"]).await;
        // Connecting without the password works, commands do not.
        let client = Client::open(server.url()).expect("a URL");
        let mut outsider = client
            .get_multiplexed_async_connection()
            .await
            .expect("a connection");
        let ping = redis::cmd("PING");
        let refused: RedisResult<String> = ping.query_async(&mut outsider).await;
        assert_eq!(refused.expect_err("no password").code(), Some("NOAUTH"));
        server.cmd(&["CONFIG", "SET", "requirepass", ""]).await;
        assert_eq!(
            query::<String>(&mut server.client().await, &["PING"]).await,
            "PONG"
        );
    }

    #[tokio::test]
    async fn commands_are_counted() {
        let server = RedisServer::start(Flavor::Redis).await;
        for _ in 0..3 {
            server.cmd(&["HGET", "key", "field"]).await;
        }
        let calls = server.command_calls().await;
        assert_eq!(calls.get("hget"), Some(&3));
        assert_eq!(calls.get("hset"), None);
    }

    #[tokio::test]
    async fn a_dump_holds_every_key_field_and_value() {
        let server = RedisServer::start(Flavor::Redis).await;
        let mut client = server.client().await;
        let fill: [&[&[u8]]; 7] = [
            &[b"SET", b"string", b"\xff\x00"],
            &[b"HSET", b"hash", b"field", b"hashed"],
            &[b"RPUSH", b"list", b"first", b"second"],
            &[b"SADD", b"set", b"member"],
            &[b"SELECT", b"3"],
            &[b"ZADD", b"zset", b"1", b"scored"],
            &[b"SET", b"\xfe", b""],
        ];
        for command in fill {
            let _: Value = query(&mut client, command).await;
        }
        let mut dump = server.dump_everything().await;
        dump.sort();
        let expected: [&[u8]; 14] = [
            b"",
            b"field",
            b"first",
            b"hash",
            b"hashed",
            b"list",
            b"member",
            b"scored",
            b"second",
            b"set",
            b"string",
            b"zset",
            b"\xfe",
            b"\xff\x00",
        ];
        assert_eq!(dump, expected);
    }
}
