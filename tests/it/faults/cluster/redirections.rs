//! How many round trips a redirection takes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tower_bearer_session::{RedisStore, SessionStore};

use super::{
    super::patient_store,
    fake::{Endpoint, all_slots_at, empty, map_of},
};
use crate::{
    harness::fake::{FakeServer, Reply, bulk, error},
    stores::{HOUR, token_id},
};

/// Two nodes; the second one holds every slot, the first one tells nobody so who asks for the map.
struct Scene {
    old: FakeServer,
    new: FakeServer,
    store: RedisStore,
}

impl Scene {
    /// The first node answers commands about keys like this, given the address of the second one.
    async fn new(answer: impl Fn(&[&str], &str) -> Reply + Send + Sync + 'static) -> Self {
        let (old, new) = (FakeServer::start().await, FakeServer::start().await);
        new.answer(empty);
        let (slots, told) = (all_slots_at(Endpoint::of(&old)), AtomicBool::new(false));
        let address = format!("127.0.0.1:{}", new.port());
        old.answer(move |words| match words {
            ["GET", key] if key.ends_with(":{}") => empty(words),
            // Nothing but the redirection tells where the slot is.
            ["CLUSTER", "SLOTS"] if told.swap(true, Ordering::SeqCst) => {
                Some(error("ERR not told twice"))
            }
            _ => map_of(&slots, words).or_else(|| answer(words, &address)),
        });
        let store = patient_store(&format!("redis-cluster://127.0.0.1:{}", old.port())).await;
        Self { old, new, store }
    }

    async fn moved() -> Self {
        Self::new(|_, new| Some(error(&format!("MOVED 1 {new}")))).await
    }

    async fn check(&self) {
        let checked = self.store.check("al", &token_id(1)).await;
        assert!(checked.unwrap().is_none());
    }

    async fn refresh(&self) {
        let refreshed = self.store.refresh("al", &token_id(1), HOUR).await;
        assert!(!refreshed.unwrap());
    }

    /// How often each of the nodes was sent this command.
    fn calls(&self, command: &str) -> [usize; 2] {
        [&self.old, &self.new].map(|node| node.calls(command))
    }
}

/// A check that is answered `MOVED` goes to where the node said, and the next one goes there at once.
#[tokio::test]
async fn a_moved_check_takes_one_more_round_trip_once() {
    let scene = Scene::moved().await;
    for checks in 1..=3 {
        scene.check().await;
        assert_eq!(scene.calls("HGET"), [1, checks]);
        // Each connection begins with one.
        assert_eq!(scene.calls("TIME"), [2, 1 + checks]);
    }
    scene.refresh().await;
    assert_eq!(scene.calls("EVALSHA"), [0, 1]);
}

/// So does a write.
#[tokio::test]
async fn a_moved_write_takes_one_more_round_trip_once() {
    let scene = Scene::moved().await;
    for writes in 1..=3 {
        scene.refresh().await;
        assert_eq!(scene.calls("EVALSHA"), [1, writes]);
    }
    scene.check().await;
    assert_eq!(scene.calls("HGET"), [0, 1]);
}

/// Checks that share a pipeline, too.
#[tokio::test]
async fn moved_checks_of_a_batch_take_one_more_round_trip_each() {
    const CHECKS: usize = 32;
    let scene = Arc::new(Scene::moved().await);
    let checks = (0..CHECKS).map(|_| {
        let scene = Arc::clone(&scene);
        tokio::spawn(async move { scene.check().await })
    });
    for check in checks.collect::<Vec<_>>() {
        check.await.unwrap();
    }
    assert_eq!(scene.calls("HGET"), [CHECKS, CHECKS]);
    scene.check().await;
    assert_eq!(scene.calls("HGET"), [CHECKS, CHECKS + 1]);
}

/// A check that is answered `ASK` asks the other node for what is there, and for nothing else; the slot stays where it
/// is.
#[tokio::test]
async fn a_check_that_has_to_ask_takes_one_more_round_trip() {
    let scene = Scene::new(|words, new| match words {
        ["HGET", ..] => Some(error(&format!("ASK 1 {new}"))),
        ["GET", ..] => Some(bulk("user")),
        _ => None,
    });
    let scene = scene.await;
    for checks in 1..=3 {
        scene.check().await;
        assert_eq!(scene.calls("HGET"), [checks; 2]);
        assert_eq!(scene.calls("ASKING"), [0, checks]);
        assert_eq!(scene.calls("GET tbs:users:{al}"), [checks, 0]);
    }
}

/// An error that points nowhere is not asked for twice.
#[tokio::test]
async fn a_refused_check_is_not_sent_again() {
    for refusal in [
        "CLUSTERDOWN The cluster is down",
        "NOPERM no",
        "TRYAGAIN later",
    ] {
        let scene = Scene::new(move |_, _| Some(error(refusal))).await;
        let checked = scene.store.check("al", &token_id(1)).await;
        assert!(checked.unwrap_err().is_fault());
        assert_eq!(scene.calls("HGET"), [1, 0], "{refusal}");
    }
}
