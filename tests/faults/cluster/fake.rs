//! Clusters of [`FakeServer`]s.

use std::ops::RangeInclusive;

use crate::harness::fake::{FakeServer, NIL, Reply, array, bulk, error};

/// How a node is named in a map of slots.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// `None` is a null.
    pub(super) host: Option<&'static str>,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn of(node: &FakeServer) -> Self {
        Self {
            host: Some("127.0.0.1"),
            port: node.port(),
        }
    }
}

/// Who holds which slots.
pub(super) type Slots = Vec<(RangeInclusive<u16>, Endpoint)>;

/// Every slot is at this endpoint.
pub(super) fn all_slots_at(endpoint: Endpoint) -> Slots {
    vec![(0..=16383, endpoint)]
}

/// What a node answers to who asks for the map; `None` if that is not the question.
pub(super) fn map_of(slots: &Slots, words: &[&str]) -> Reply {
    let id = |endpoint: &Endpoint| format!("node-{}", endpoint.port);
    match words {
        ["CLUSTER", "SLOTS"] => Some(array(slots.iter().map(|(range, endpoint)| {
            let host = endpoint.host.map_or(NIL.to_owned(), bulk);
            let port = format!(":{}\r\n", endpoint.port);
            let node = array([host, port, bulk(&id(endpoint)), array([])]);
            let bounds = [range.start(), range.end()].map(|slot| format!(":{slot}\r\n"));
            array(bounds.into_iter().chain([node]))
        }))),
        ["CLUSTER", "NODES"] => {
            let lines = slots.iter().map(|(_, endpoint)| {
                let (id, port) = (id(endpoint), endpoint.port);
                format!("{id} :{port}@1 master - 0 0 1 connected\n")
            });
            Some(bulk(&lines.collect::<String>()))
        }
        _ => None,
    }
}

/// What an empty node answers that holds every slot.
pub(super) fn empty(words: &[&str]) -> Reply {
    match words {
        ["GET" | "HGET", ..] => Some(NIL.to_owned()),
        // A change of a session that is not there, with the time.
        ["EVALSHA", ..] => {
            let number = |n: u64| format!(":{n}\r\n");
            let outcome = array([bulk("no"), number(0), number(0)]);
            Some(array([number(2_000_000_000_000_000), outcome]))
        }
        // On the connection of the checks, which must not hang.
        ["CLUSTER", ..] => Some(error("ERR not told")),
        _ => None,
    }
}
