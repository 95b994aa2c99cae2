//! Nodes whose endpoint the cluster does not know, or leaves for the client to know.

use tower_bearer_session::{RedisStore, SessionStore};

use super::{
    super::{eventually, is_unavailable, patient_store},
    everything_works,
    fake::{Endpoint, Slots, all_slots_at, empty, map_of},
    manager,
};
use crate::{
    harness::{
        Cluster, Flavor,
        fake::{FakeServer, error},
    },
    stores::{HOUR, token_id},
};

/// `CLUSTER SLOTS` names a node `?` that has no hostname although hostnames are preferred. It may be anywhere, so
/// what its slots hold is unavailable, until somebody knows its endpoint.
#[tokio::test]
async fn a_node_with_an_unknown_endpoint_is_never_contacted() {
    let (known, unknown) = (FakeServer::start().await, FakeServer::start().await);
    unknown.answer(empty);
    let slots = |host| -> Slots {
        let port = unknown.port();
        vec![
            (0..=8191, Endpoint { host, port }),
            (8192..=16383, Endpoint::of(&known)),
        ]
    };
    let (unset, set) = (slots(Some("?")), slots(Some("127.0.0.1")));
    known.answer(move |words| map_of(&unset, words).or_else(|| empty(words)));
    let store = patient_store(&url(&known)).await;
    let user = user_in(0..=8191);
    for _ in 0..10 {
        let error = store.check(&user, &token_id(1)).await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
    }
    assert_eq!(unknown.connections(), 0);
    assert_eq!(known.calls("HGET"), 0);
    assert!(store.health().primaries().len() == 1);

    known.answer(move |words| map_of(&set, words).or_else(|| empty(words)));
    eventually("a check", async || {
        store.check(&user, &token_id(1)).await.is_ok()
    })
    .await;
    assert_eq!(known.calls("HGET"), 0);
}

/// Neither is one that a redirection names so.
#[tokio::test]
async fn a_redirection_to_an_unknown_endpoint_is_not_followed() {
    for code in ["MOVED", "ASK"] {
        let (asked, unknown) = (FakeServer::start().await, FakeServer::start().await);
        unknown.answer(empty);
        let slots = all_slots_at(Endpoint::of(&asked));
        let elsewhere = error(&format!("{code} 1 ?:{}", unknown.port()));
        asked.answer(move |words| {
            let map = map_of(&slots, words);
            map.or_else(|| match words {
                ["GET", key] if key.ends_with(":{}") => empty(words),
                _ => Some(elsewhere.clone()),
            })
        });
        let store = RedisStore::connect(url(&asked)).await.unwrap();
        let check = store.check("al", &token_id(1)).await.unwrap_err();
        assert!(is_unavailable(&check), "{check:?}");
        let write = store.refresh("al", &token_id(1), HOUR).await.unwrap_err();
        assert!(is_unavailable(&write), "{write:?}");
        assert_eq!(unknown.connections(), 0, "{code}");
    }
}

/// An endpoint that is left out, in a redirection, has the host of the node that sends it.
#[tokio::test]
async fn a_redirection_without_a_host_is_to_the_host_that_was_asked() {
    for code in ["MOVED", "ASK"] {
        let (asked, other) = (FakeServer::start().await, FakeServer::start().await);
        other.answer(empty);
        let slots = all_slots_at(Endpoint::of(&asked));
        let elsewhere = error(&format!("{code} 1 :{}", other.port()));
        asked.answer(move |words| {
            let map = map_of(&slots, words);
            map.or_else(|| match words {
                ["GET", key] if key.ends_with(":{}") => empty(words),
                _ => Some(elsewhere.clone()),
            })
        });
        let store = patient_store(&url(&asked)).await;
        assert!(store.check("al", &token_id(1)).await.unwrap().is_none());
        assert_eq!(other.calls("HGET"), 1);
        assert!(!store.refresh("al", &token_id(1), HOUR).await.unwrap());
        assert_eq!(other.calls("EVALSHA"), 1);
    }
}

/// Nodes behind something that only the client knows the address of leave the host out everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_may_leave_its_hosts_to_the_client() {
    let args = ["--cluster-preferred-endpoint-type", "unknown-endpoint"];
    let cluster = Cluster::start_with(Flavor::Redis, None, &args).await;
    let manager = manager(patient_store(&cluster.url()).await);
    for user in ["al", "bo", "cy"] {
        everything_works(&manager, user).await;
    }
}

/// A cluster that prefers hostnames and has none can be used as soon as it has some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_its_hostnames_is_unavailable_until_it_has_some() {
    let args = ["--cluster-preferred-endpoint-type", "hostname"];
    let cluster = Cluster::start_with(Flavor::Redis, None, &args).await;
    let store = RedisStore::builder(cluster.url()).connect_lazy().unwrap();
    eventually("an answer of the cluster", async || {
        let text = super::super::everything(&store.get_user("al").await.unwrap_err());
        text.contains("holds slot")
    })
    .await;
    for node in cluster.nodes() {
        let name = ["CONFIG", "SET", "cluster-announce-hostname", "localhost"];
        node.cmd(&name).await;
    }
    eventually("a read", async || store.get_user("al").await.is_ok()).await;
    for primary in store.health().primaries() {
        assert!(primary.address().starts_with("localhost:"), "{primary:?}");
    }
}

/// A user whose keys are in one of these slots.
fn user_in(slots: std::ops::RangeInclusive<u16>) -> String {
    let users = (0..).map(|n: u32| format!("user{n}"));
    let slot = |user: &String| crc16(user.as_bytes()) % 16384;
    let mut users = users.filter(|user| slots.contains(&slot(user)));
    users.next().expect("a user")
}

/// CRC-16/XMODEM, as in the specification of the cluster.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| match crc >> 15 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x1021,
        })
    })
}

fn url(node: &FakeServer) -> String {
    format!("redis-cluster://127.0.0.1:{}", node.port())
}
