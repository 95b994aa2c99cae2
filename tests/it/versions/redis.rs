use ::redis::Cmd;
use tower_bearer_session::TokenId;

use super::NextVersion;
use crate::stores::{Redis, Server, Valkey};

const KEY: &str = "tbs:tokens:{al}";
/// A part that this version does not know.
const UNKNOWN: &[u8] = b"\0\x01a part of the next version";

impl NextVersion for Redis {
    async fn rewrite(&self, id: &TokenId, is_compatible: bool) {
        rewrite(self, id, is_compatible).await;
    }

    async fn unknown_part(&self, id: &TokenId) -> Vec<u8> {
        unknown_part(self, id).await
    }
}

impl NextVersion for Valkey {
    async fn rewrite(&self, id: &TokenId, is_compatible: bool) {
        rewrite(self, id, is_compatible).await;
    }

    async fn unknown_part(&self, id: &TokenId) -> Vec<u8> {
        unknown_part(self, id).await
    }
}

async fn record(backend: &impl Server, id: &TokenId) -> Vec<u8> {
    let mut client = backend.server().client().await;
    let mut get = Cmd::new();
    get.arg("HGET").arg(KEY).arg(id.as_str());
    get.query_async(&mut client).await.unwrap()
}

async fn rewrite(backend: &impl Server, id: &TokenId, is_compatible: bool) {
    let mut record = record(backend, id).await;
    if is_compatible {
        // The bit of a part that comes after all known ones.
        record[19] |= 0x10;
    } else {
        record[6] = 2;
        // Nothing after the header needs to be as it was.
        record.truncate(19);
    }
    record.extend(UNKNOWN);
    let mut client = backend.server().client().await;
    let mut set = Cmd::new();
    set.arg("HSET").arg(KEY).arg(id.as_str()).arg(record);
    let _: i64 = set.query_async(&mut client).await.unwrap();
}

async fn unknown_part(backend: &impl Server, id: &TokenId) -> Vec<u8> {
    let record = record(backend, id).await;
    let is_compatible = record[6] == 1;
    assert!(!is_compatible || record[19] & 0x10 != 0, "{record:?}");
    let start = record.len().checked_sub(UNKNOWN.len()).unwrap();
    assert_eq!(&record[start..], UNKNOWN);
    record[start..].to_vec()
}
