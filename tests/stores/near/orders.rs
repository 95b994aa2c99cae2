//! Every order of what can happen to a lookup, by a server that does as it is told.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::join_all;
use tower_bearer_session::{RedisStore, SessionStore};

use super::{is_hit, lasting, warm};
use crate::{
    eventually,
    harness::fake::{FakeServer, NIL, bulk},
    stores::{patient, token_id},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The server reads the session.
    Read,
    /// It sends what it has read. On a real connection it does so before it announces what comes later; here it may not.
    Reply,
    /// Somebody ends the session.
    Delete,
    /// The server announces that.
    Announce,
    Disconnect,
    /// The caller of the lookup gives up.
    Cancel,
}

const EVENTS: [Event; 6] = [
    Event::Read,
    Event::Reply,
    Event::Delete,
    Event::Announce,
    Event::Disconnect,
    Event::Cancel,
];

/// A record that expires in 2039; the fake server lives in 2033.
const RECORD: &str = "\u{2}\0\0\0\0\0\u{1}\u{1}\0\0\0\0\0\u{1}\0\0\0\0\0\0";

/// All orders in which a reply follows its read, and an announcement what it announces.
fn orders() -> Vec<Vec<Event>> {
    let mut orders = vec![Vec::new()];
    for event in EVENTS {
        let longer = |order: Vec<Event>| {
            (0..=order.len()).map(move |place| {
                let mut order = order.clone();
                order.insert(place, event);
                order
            })
        };
        orders = mem::take(&mut orders)
            .into_iter()
            .flat_map(longer)
            .collect();
    }
    orders.retain(|order| {
        let place = |event| order.iter().position(|it| *it == event);
        place(Event::Read) < place(Event::Reply) && place(Event::Delete) < place(Event::Announce)
    });
    orders
}

struct Scene {
    server: FakeServer,
    is_live: Arc<AtomicBool>,
    store: RedisStore,
}

impl Scene {
    async fn new() -> Self {
        let (server, is_live) = (FakeServer::start().await, Arc::new(AtomicBool::new(true)));
        let live = Arc::clone(&is_live);
        server.answer(move |words| match words {
            ["HGET", key, _] if key.contains("al") => Some(session(live.load(Ordering::SeqCst))),
            ["PTTL", _] => Some(":-2\r\n".to_owned()),
            ["INFO", ..] => Some(bulk("run_id:one\r\n")),
            _ => Some(NIL.to_owned()),
        });
        let url = format!("redis://127.0.0.1:{}", server.port());
        let store = patient(RedisStore::builder(url)).near_cache(lasting());
        let store = store.connect().await.unwrap();
        Self {
            server,
            is_live,
            store,
        }
    }

    fn is_hit(&self) -> bool {
        is_hit(&self.store, "al", &token_id(1))
    }

    /// Lets all of it happen; returns whether the near-cache has answered before the session was ended.
    async fn play(&self, order: &[Event], is_warm: bool) -> bool {
        self.is_live.store(true, Ordering::SeqCst);
        self.server.hold(None);
        // A connection whose lease holds.
        warm(&self.store, "al", &token_id(1)).await;
        if !is_warm {
            self.announce().await;
        }
        self.server.hold(Some("HGET"));
        let asked = self.server.calls("HGET");
        let store = self.store.clone();
        let lookup = tokio::spawn(async move { store.check("al", &token_id(1)).await });
        eventually("the lookup", async || self.server.calls("HGET") > asked).await;

        let (mut read, mut was_hit) = (None, false);
        let (mut is_connected, mut must_miss) = (true, false);
        for event in order {
            match event {
                Event::Read => read = Some(self.is_live.load(Ordering::SeqCst)),
                Event::Reply if is_connected => {
                    self.server.hold(None);
                    self.server.release(&session(read.expect("it was read")));
                    // Its reply comes after that to the lookup.
                    self.store.get_user("nobody").await.unwrap();
                }
                Event::Delete => {
                    was_hit |= self.is_hit();
                    self.is_live.store(false, Ordering::SeqCst);
                }
                Event::Announce if is_connected => {
                    self.announce().await;
                    must_miss = true;
                }
                Event::Disconnect => {
                    // If the lookup is sent again, it is held again.
                    let losses = || self.store.health().near_cache().unwrap().lease_losses;
                    let before = losses();
                    self.server.disconnect();
                    eventually("the end of the lease", async || losses() > before).await;
                    is_connected = false;
                    must_miss |= !self.is_live.load(Ordering::SeqCst);
                }
                Event::Cancel => lookup.abort(),
                Event::Reply | Event::Announce => {}
            }
            assert!(!(must_miss && self.is_hit()), "a stale hit after {event:?}");
        }
        self.server.hold(None);
        self.server.release(&session(false));
        drop(lookup.await);
        assert!(!self.is_hit(), "a stale hit in the end");
        let checked = self.store.check("al", &token_id(1)).await;
        assert!(checked.unwrap().is_none());
        was_hit
    }

    async fn announce(&self) {
        let count = || self.store.health().near_cache().unwrap().invalidations;
        let before = count();
        let key = bulk("tbs:tokens:{al}");
        self.server
            .say(&format!(">2\r\n{}*1\r\n{key}", bulk("invalidate")));
        eventually("the announcement", async || count() > before).await;
    }
}

fn session(is_live: bool) -> String {
    match is_live {
        true => bulk(RECORD),
        false => NIL.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_of_events_leaves_a_stale_hit() {
    let orders = orders();
    assert_eq!(orders.len(), 180);
    // Beside one another, because connecting anew takes its time.
    let parts = orders.chunks(10).map(async |part| {
        let (scene, mut hits) = (Scene::new().await, [0, 0]);
        for order in part {
            for is_warm in [false, true] {
                println!("{order:?}, {is_warm}");
                hits[usize::from(is_warm)] += u32::from(scene.play(order, is_warm).await);
            }
        }
        hits
    });
    let hits = join_all(parts).await;
    let [cold, warm] = [0, 1].map(|kind| hits.iter().map(|hits| hits[kind]).sum::<u32>());
    println!("hits before the end of the session: {cold} by the lookup, {warm} by one before it");
    assert!(cold > 0 && warm > 0);
}
