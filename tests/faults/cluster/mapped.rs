//! Nodes that are elsewhere than they say.

use std::{io, net::SocketAddr};

use tower_bearer_session::{RedisStoreBuilder, SessionStore};

use super::fake::{Endpoint, Slots, empty, map_of};
use crate::{
    harness::fake::{FakeServer, error},
    stores::token_id,
};

/// The private addresses of the nodes; nobody here answers at them.
const PRIVATE: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const PORT: u16 = 6379;

fn slots() -> Slots {
    let at = |host| Endpoint {
        host: Some(host),
        port: PORT,
    };
    vec![(0..=8191, at(PRIVATE[0])), (8192..=16383, at(PRIVATE[1]))]
}

/// A store that reaches the nodes through the ports of this host to which they are forwarded.
fn builder(nodes: &[FakeServer; 2]) -> RedisStoreBuilder {
    let ports = nodes.each_ref().map(FakeServer::port);
    RedisStoreBuilder::cluster(["cluster.test"]).resolve_with(move |host, port| async move {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        match (&*host, port) {
            ("cluster.test", _) => Ok(ports.map(local).to_vec()),
            (host, PORT) if host == PRIVATE[0] => Ok(vec![local(ports[0])]),
            (host, PORT) if host == PRIVATE[1] => Ok(vec![local(ports[1])]),
            _ => Err(io::Error::other(format!("{host}:{port} is not mapped"))),
        }
    })
}

#[tokio::test]
async fn the_addresses_that_nodes_announce_are_mapped() {
    let nodes = [FakeServer::start().await, FakeServer::start().await];
    for node in &nodes {
        node.answer(|words| map_of(&slots(), words).or_else(|| empty(words)));
    }
    let store = builder(&nodes).connect().await.unwrap();
    for n in 0..20 {
        let user = format!("user{n}");
        assert!(store.check(&user, &token_id(1)).await.unwrap().is_none());
    }
    let calls = nodes.each_ref().map(|node| node.calls("HGET"));
    assert!(
        calls[0] > 0 && calls[1] > 0 && calls[0] + calls[1] == 20,
        "{calls:?}"
    );
    let mut primaries: Vec<_> = store.health().primaries().to_vec();
    primaries.sort_by_key(|primary| primary.address().to_owned());
    let names = primaries.iter().map(|primary| primary.address().to_owned());
    assert!(
        names.eq(PRIVATE.map(|host| format!("{host}:{PORT}"))),
        "{primaries:?}"
    );
}

/// And those in redirections.
#[tokio::test]
async fn a_redirection_is_mapped() {
    for code in ["MOVED", "ASK"] {
        let nodes = [FakeServer::start().await, FakeServer::start().await];
        nodes[1].answer(|words| map_of(&slots(), words).or_else(|| empty(words)));
        let elsewhere = error(&format!("{code} 1 {}:{PORT}", PRIVATE[1]));
        nodes[0].answer(move |words| {
            let map = map_of(&slots(), words);
            map.or_else(|| match words {
                ["GET", key] if key.ends_with(":{}") => empty(words),
                _ => Some(elsewhere.clone()),
            })
        });
        let store = builder(&nodes).connect().await.unwrap();
        for n in 0..20 {
            let user = format!("user{n}");
            assert!(store.check(&user, &token_id(1)).await.unwrap().is_none());
        }
        assert_eq!(nodes[1].calls("HGET"), 20, "{code}");
    }
}

/// With a name that stands for all nodes, each of them is asked for the map, whichever answers first: one that has been
/// cut off is outvoted.
#[tokio::test]
async fn a_name_for_all_nodes_is_expanded() {
    let nodes = [FakeServer::start().await, FakeServer::start().await];
    nodes[0].answer(|words| match words {
        ["CLUSTER", ..] => Some(error("ERR not told")),
        _ => empty(words),
    });
    nodes[1].answer(|words| map_of(&slots(), words).or_else(|| empty(words)));
    for _ in 0..5 {
        let store = builder(&nodes).expand_names(true);
        let store = store.connect().await.unwrap();
        assert!(store.check("al", &token_id(1)).await.unwrap().is_none());
    }
    assert!(nodes.iter().all(|node| node.calls("CLUSTER SLOTS") >= 5));
}
