//! Clients that use a service all the time, and judge every answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Method, Response, header::RETRY_AFTER};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock},
    task::{JoinHandle, JoinSet},
};

use super::eventually;
use support::app::{Client, Server};

/// Clients in tasks of their own, until [`finish`](Self::finish).
pub(super) struct Load {
    probe: Client,
    clients: JoinSet<()>,
    /// Of each client but the probe.
    records: Vec<Record>,
    tally: Arc<Tally>,
    paused: Option<OwnedRwLockWriteGuard<()>>,
}

/// What was answered so far.
#[derive(Default)]
struct Tally {
    /// How often somebody has waited for an answer to each client.
    round: AtomicU64,
    /// 200 for a live token.
    fine: AtomicU64,
    /// 503.
    unavailable: AtomicU64,
    /// 503 for anything but a login.
    unavailable_but_logins: AtomicU64,
    /// The slowest answer, in microseconds.
    slowest: AtomicU64,
    /// Shared by the logins and logouts that are under way.
    writes: Arc<RwLock<()>>,
    stop: AtomicBool,
}

/// What is written down of one client.
#[derive(Clone)]
struct Record {
    tally: Arc<Tally>,
    /// The round in which the latest of the client's answered requests began.
    answered: Arc<AtomicU64>,
}

impl Load {
    /// Starts clients that stay logged in, that stay logged out, that come and go, and that are strangers.
    pub(super) async fn start(server: &Server) -> Self {
        let (mut clients, tally) = (JoinSet::new(), Arc::new(Tally::default()));
        let mut records = Vec::new();
        let mut record = || {
            let record = Record::new(&tally);
            records.push(record.clone());
            record
        };
        for number in 0..4 {
            let client = server.login(&format!("stays{number}"), "phone").await;
            clients.spawn(stay_logged_in(client, record()));
        }
        let client = server.login("left", "phone").await;
        assert_eq!(client.post("/logout", &Value::Null).await.status(), 200);
        clients.spawn(stay_logged_out(client, record()));
        for number in 0..3 {
            let user = format!("comes{number}");
            clients.spawn(come_and_go(server.client(), user, record()));
        }
        clients.spawn(be_a_stranger(server.client(), record()));
        let probe = server.login("probe", "phone").await;
        let mut load = Self {
            probe,
            clients,
            records,
            tally,
            paused: None,
        };
        load.runs().await;
        load
    }

    /// Waits for a good many more answers that are fine.
    pub(super) async fn runs(&mut self) {
        self.more(50, "fine answers", |tally| &tally.fine).await;
    }

    /// Waits until each client has got an answer to a request that it begins after this call.
    pub(super) async fn answers_each_client(&mut self) {
        let round = self.tally.round.fetch_add(1, Ordering::Relaxed) + 1;
        let clients = &mut self.clients;
        let records = &self.records;
        eventually("an answer to each client", async || {
            assert_no_client_failed(clients);
            records
                .iter()
                .all(|record| record.answered.load(Ordering::Relaxed) >= round)
        })
        .await;
    }

    /// Waits for a few more answers that the service is unavailable.
    pub(super) async fn suffers(&mut self) {
        self.more(3, "503s", |tally| &tally.unavailable).await;
    }

    /// Lets nobody log in or out any more; when this returns nobody is about to. The others go on.
    ///
    /// For faults that may undo what was acknowledged last.
    pub(super) async fn pause_writers(&mut self) {
        self.paused = Some(Arc::clone(&self.tally.writes).write_owned().await);
    }

    /// Lets them log in and out again.
    pub(super) fn resume_writers(&mut self) {
        self.paused = None;
    }

    /// How many requests were answered with 503 so far.
    pub(super) fn unavailable(&self) -> u64 {
        self.tally.unavailable.load(Ordering::Relaxed)
    }

    /// How many requests other than logins were answered with 503 so far.
    pub(super) fn unavailable_but_logins(&self) -> u64 {
        self.tally.unavailable_but_logins.load(Ordering::Relaxed)
    }

    /// When a request will be answered with 200 next.
    pub(super) fn next_fine_answer(&self) -> JoinHandle<Instant> {
        let (probe, record) = (self.probe.clone(), Record::new(&self.tally));
        tokio::spawn(async move {
            while answered(&probe, Method::GET, "/me", &record).await != 200 {
                pause().await;
            }
            Instant::now()
        })
    }

    /// Waits until the service works again, and prints how long it took.
    pub(super) async fn recovers(&mut self, from: &str) -> Duration {
        let record = Record::new(&self.tally);
        let took = eventually("recovery", async || {
            answered(&self.probe, Method::GET, "/me", &record).await == 200
        })
        .await;
        let slowest = Duration::from_micros(self.tally.slowest.swap(0, Ordering::Relaxed));
        println!(
            "{from}: fine again after {took:?}; {} × 503, slowest answer {slowest:?}",
            self.unavailable()
        );
        self.runs().await;
        took
    }

    /// Stops the clients; panics if one of them got an answer that it should not have got.
    pub(super) async fn finish(mut self) {
        self.tally.stop.store(true, Ordering::Relaxed);
        self.resume_writers();
        while let Some(client) = self.clients.join_next().await {
            client.expect("right answers");
        }
    }

    async fn more(&mut self, count: u64, what: &str, counter: impl Fn(&Tally) -> &AtomicU64) {
        let counter = counter(&self.tally);
        let goal = counter.load(Ordering::Relaxed) + count;
        eventually(what, async || {
            assert_no_client_failed(&mut self.clients);
            counter.load(Ordering::Relaxed) >= goal
        })
        .await;
    }
}

/// Passes on the panic of a client that got an answer that it should not have got.
fn assert_no_client_failed(clients: &mut JoinSet<()>) {
    if let Some(Err(failed)) = clients.try_join_next() {
        std::panic::resume_unwind(failed.into_panic());
    }
}

impl Record {
    fn new(tally: &Arc<Tally>) -> Self {
        Self {
            tally: Arc::clone(tally),
            answered: Arc::default(),
        }
    }
}

impl Tally {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A live token is never refused, and always its own user's.
async fn stay_logged_in(client: Client, record: Record) {
    let me = async || {
        let response = answer(&client, Method::GET, "/me", None, &record).await;
        match response.status().as_u16() {
            200 => Some(response.json::<Value>().await.expect("JSON")),
            503 => None,
            other => panic!("{other} for a live token"),
        }
    };
    let mut mine = None;
    while !record.tally.stopped() {
        if let Some(mut now) = me().await {
            record.tally.fine.fetch_add(1, Ordering::Relaxed);
            now["remaining"].take();
            assert_eq!(*mine.get_or_insert_with(|| now.clone()), now);
        }
        pause().await;
    }
    assert!(me().await.is_some());
}

/// A token that was logged out is never accepted again.
async fn stay_logged_out(client: Client, record: Record) {
    while !record.tally.stopped() {
        let status = answered(&client, Method::GET, "/me", &record).await;
        assert!([401, 503].contains(&status), "{status} after a logout");
        pause().await;
    }
    assert_eq!(client.status("/me").await, 401);
}

/// A login that was acknowledged is valid until the logout, and after that was acknowledged never again.
async fn come_and_go(stranger: Client, user: String, record: Record) {
    let login = json!({"user": user});
    let mut gone = Vec::new();
    while !record.tally.stopped() {
        let writing = record.tally.writes.read().await;
        let response = answer(&stranger, Method::POST, "/login", Some(&login), &record).await;
        drop(writing);
        match response.status().as_u16() {
            200 => {}
            503 => {
                pause().await;
                continue;
            }
            other => panic!("{other} for a login"),
        }
        let token: Value = response.json().await.expect("JSON");
        let client = stranger.with_token(token["token"].as_str().expect("a token"));
        for _ in 0..3 {
            let status = answered(&client, Method::GET, "/me", &record).await;
            assert!([200, 503].contains(&status), "{status} after a login");
            pause().await;
        }
        let mut tried_before = false;
        loop {
            let writing = record.tally.writes.read().await;
            let status = answered(&client, Method::POST, "/logout", &record).await;
            drop(writing);
            match status {
                200 => break,
                // An attempt that failed as seen from here may have been done.
                401 if tried_before => break,
                503 => tried_before = true,
                other => panic!("{other} for a logout"),
            }
            pause().await;
        }
        let status = answered(&client, Method::GET, "/me", &record).await;
        assert!([401, 503].contains(&status), "{status} after a logout");
        gone.push(client);
    }
    for client in gone {
        assert_eq!(client.status("/me").await, 401);
    }
}

/// Who shows no token is no concern of the store.
async fn be_a_stranger(client: Client, record: Record) {
    while !record.tally.stopped() {
        assert_eq!(answered(&client, Method::GET, "/", &record).await, 200);
        assert_eq!(answered(&client, Method::GET, "/me", &record).await, 401);
        pause().await;
    }
}

/// The status of an answer.
async fn answered(client: &Client, method: Method, path: &str, record: &Record) -> u16 {
    let response = answer(client, method, path, None, record).await;
    response.status().as_u16()
}

/// The answer, which must come in time, and say when to come back if it is a 503.
async fn answer(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
    record: &Record,
) -> Response {
    let tally = &record.tally;
    let round = tally.round.load(Ordering::Relaxed);
    let start = Instant::now();
    let response = client.send(method, path, body).await;
    let took = u64::try_from(start.elapsed().as_micros()).expect("a short time");
    tally.slowest.fetch_max(took, Ordering::Relaxed);
    if response.status() == 503 {
        assert!(response.headers().contains_key(RETRY_AFTER));
        tally.unavailable.fetch_add(1, Ordering::Relaxed);
        if path != "/login" {
            let counter = &tally.unavailable_but_logins;
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
    record.answered.fetch_max(round, Ordering::Relaxed);
    response
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}
