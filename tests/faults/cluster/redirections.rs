//! How many round trips a redirection takes.

use std::sync::{
    Arc, Mutex,
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

/// Checks that share a pipeline, too, and they share one again.
#[tokio::test]
async fn moved_checks_of_a_batch_take_one_more_round_trip() {
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
    // The first one may go alone, and each connection begins with one.
    let pipelines = scene.calls("TIME")[1] - 1;
    assert!(pipelines <= CHECKS / 4, "{pipelines}");
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

/// A check that has to ask is put together from the replies of two nodes, whose clocks may differ: a write at either
/// node afterwards has a deadline by that node's own clock.
#[tokio::test]
async fn a_check_that_has_to_ask_sets_no_clock_to_that_of_another_node() {
    const CLOCKS: [u64; 2] = [1_500_000_000, 1_000_000_000];
    let (old, new) = (FakeServer::start().await, FakeServer::start().await);
    let redirects = Arc::new(AtomicBool::new(true));
    let deadlines = Arc::new(Mutex::new(Vec::new()));
    let slots = all_slots_at(Endpoint::of(&old));
    let ask = error(&format!("ASK 1 127.0.0.1:{}", new.port()));
    let (asks, told) = (Arc::clone(&redirects), Arc::clone(&deadlines));
    old.answer(move |words| {
        if asks.load(Ordering::SeqCst) && matches!(words, ["HGET" | "EVALSHA", ..]) {
            return Some(ask.clone());
        }
        note_deadline(&told, words);
        map_of(&slots, words).or_else(|| empty(words))
    });
    let told = Arc::clone(&deadlines);
    new.answer(move |words| {
        note_deadline(&told, words);
        empty(words)
    });
    old.set_time(CLOCKS[0]);
    new.set_time(CLOCKS[1]);
    let store = patient_store(&format!("redis-cluster://127.0.0.1:{}", old.port())).await;
    assert!(store.check("al", &token_id(1)).await.unwrap().is_none());
    assert_eq!(new.calls("ASKING"), 1);
    // To the second node, by way of the first one.
    assert!(!store.refresh("al", &token_id(1), HOUR).await.unwrap());
    redirects.store(false, Ordering::SeqCst);
    assert!(!store.refresh("al", &token_id(1), HOUR).await.unwrap());
    let deadlines = deadlines.lock().unwrap();
    let [at_new, at_old] = deadlines[..] else {
        panic!("{deadlines:?}");
    };
    for (deadline, clock) in [at_old, at_new].into_iter().zip(CLOCKS) {
        let late = deadline.abs_diff(clock * 1_000_000);
        assert!(late < 3600 * 1_000_000, "{deadline} by the clock {clock}");
    }
}

/// Notes the deadline of a write, in microseconds by the clock of a server.
fn note_deadline(deadlines: &Mutex<Vec<u64>>, words: &[&str]) {
    if let ["EVALSHA", _, _, _, deadline, ..] = words {
        deadlines.lock().unwrap().push(deadline.parse().unwrap());
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
