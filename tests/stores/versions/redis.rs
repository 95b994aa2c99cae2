use ::redis::{Cmd, FromRedisValue};
use tower_bearer_session::TokenId;

use super::NextVersion;
use crate::{
    harness::RedisServer,
    stores::{Cluster, Redis, Server, Valkey},
};

/// A part that this version does not know.
const UNKNOWN: &[u8] = b"\0\x01a part of the next version";

macro_rules! next_versions {
    ($($backend:ident),*) => {
        $(
            impl NextVersion for $backend {
                async fn rewrite(&self, id: &TokenId, is_compatible: bool) {
                    Hash::of(self).await.rewrite(id, is_compatible).await;
                }

                async fn unknown_part(&self, id: &TokenId) -> Vec<u8> {
                    Hash::of(self).await.unknown_part(id).await
                }
            }
        )*
    };
}

next_versions!(Redis, Valkey, Cluster);

/// The sessions of "al".
struct Hash<'a> {
    server: &'a RedisServer,
    key: String,
}

trait HasSessions {
    async fn sessions(&self) -> (&RedisServer, String);
}

impl HasSessions for Redis {
    async fn sessions(&self) -> (&RedisServer, String) {
        (self.server(), "tbs:tokens:{al}".to_owned())
    }
}

impl HasSessions for Valkey {
    async fn sessions(&self) -> (&RedisServer, String) {
        (self.server(), "tbs:tokens:{al}".to_owned())
    }
}

impl HasSessions for Cluster {
    async fn sessions(&self) -> (&RedisServer, String) {
        self.sessions_of("al").await
    }
}

impl<'a> Hash<'a> {
    async fn of(backend: &'a impl HasSessions) -> Self {
        let (server, key) = backend.sessions().await;
        Self { server, key }
    }

    async fn query<T: FromRedisValue>(&self, command: &str, id: &TokenId, value: &[u8]) -> T {
        let mut client = self.server.client().await;
        let mut query = Cmd::new();
        query.arg(command).arg(&self.key).arg(id.to_string());
        if !value.is_empty() {
            query.arg(value);
        }
        query.query_async(&mut client).await.unwrap()
    }

    async fn record(&self, id: &TokenId) -> Vec<u8> {
        self.query("HGET", id, &[]).await
    }

    async fn rewrite(&self, id: &TokenId, is_compatible: bool) {
        let mut record = self.record(id).await;
        if is_compatible {
            // The bit of a part that comes after all known ones.
            record[19] |= 0x10;
        } else {
            record[6] = 2;
            // Nothing after the header needs to be as it was.
            record.truncate(19);
        }
        record.extend(UNKNOWN);
        let _: i64 = self.query("HSET", id, &record).await;
    }

    async fn unknown_part(&self, id: &TokenId) -> Vec<u8> {
        let record = self.record(id).await;
        let is_compatible = record[6] == 1;
        assert!(!is_compatible || record[19] & 0x10 != 0, "{record:?}");
        let start = record.len().checked_sub(UNKNOWN.len()).unwrap();
        assert_eq!(&record[start..], UNKNOWN);
        record[start..].to_vec()
    }
}
