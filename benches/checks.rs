//! What a check costs, as a ratio to the least it could cost: `cargo bench`, and with MariaDB
//! `cargo bench --features mysql`.
//!
//! The variants of a group take turns, round by round, so that a noisy machine disturbs all alike; the
//! table shows the medians over the rounds. Redis is started by the harness of the tests.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

// The benchmark uses a part of the harness only.
#[allow(dead_code, unused_imports)]
#[path = "../tests/it/harness/mod.rs"]
mod harness;

use std::{
    convert::Infallible,
    hint::black_box,
    time::{Duration, Instant},
};

use harness::{Flavor, RedisServer};
use http::{Request, Response, header::AUTHORIZATION};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, io::tcp::TcpSettings};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tower::{Layer, Service, service_fn};
use tower_bearer_session::{MemoryStore, RedisStore, SessionLayer, SessionStore, TokenManager};

const ROUNDS: usize = 15;

#[derive(Serialize, Deserialize)]
struct Profile {
    name: String,
    email: String,
    roles: Vec<String>,
}

type Reply = Option<Vec<u8>>;

/// One variant: what it took for each operation, round by round.
struct Row {
    name: String,
    rounds: Vec<Duration>,
}

#[tokio::main]
async fn main() {
    layer_on_memory().await;
    let server = RedisServer::start(Flavor::Redis).await;
    for tasks in [1, 64, 256] {
        check_on_redis(&server, tasks).await;
    }
    #[cfg(feature = "mysql")]
    for tasks in [1, 16] {
        check_on_mysql(tasks).await;
    }
}

/// What the layer adds to a tower service that does nothing.
async fn layer_on_memory() {
    let manager = manager(MemoryStore::new()).await;
    let token = manager.set_token("alice", None).await.unwrap();
    let bearer = format!("Bearer {}", token.expose_secret());
    let inner = service_fn(async |request: Request<()>| {
        black_box(&request);
        Ok::<_, Infallible>(Response::new(()))
    });
    let layered = SessionLayer::new(manager).layer(inner);
    let with = |bearer: &str| {
        Request::builder()
            .header(AUTHORIZATION, bearer)
            .body(())
            .unwrap()
    };

    let mut rows = rows(&["no layer", "live token", "malformed token", "no token"]);
    for _ in 0..ROUNDS {
        rows[0].rounds.push(requests(inner, || with(&bearer)).await);
        rows[1]
            .rounds
            .push(requests(layered.clone(), || with(&bearer)).await);
        rows[2]
            .rounds
            .push(requests(layered.clone(), || with("Bearer tbs1.x.y")).await);
        rows[3]
            .rounds
            .push(requests(layered.clone(), || Request::new(())).await);
    }
    report("SessionLayer on MemoryStore, per request", &rows);
}

/// `check_token_or_update_user` against its three commands on one connection, by hand.
async fn check_on_redis(server: &RedisServer, tasks: usize) {
    let manager = manager(RedisStore::connect(server.url()).await.unwrap()).await;
    let token = manager.set_token("alice", None).await.unwrap();
    let text = token.expose_secret().to_owned();
    manager
        .check_token_or_update_user(&text, None)
        .await
        .unwrap();

    let info = server.url().into_connection_info().unwrap();
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let client = Client::open(info).unwrap();
    let connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap();
    let id = token.id().as_str().to_owned();

    let mut rows = rows(&["pipeline by hand", "check_token_or_update_user"]);
    for _ in 0..ROUNDS {
        let took = concurrently(tasks, |count| {
            let (mut connection, id) = (connection.clone(), id.clone());
            async move {
                for _ in 0..count {
                    let reply: (Reply, Reply, (u64, u64)) = redis::pipe()
                        .hget("tbs:tokens:{alice}", &id)
                        .get("tbs:users:{alice}")
                        .cmd("TIME")
                        .query_async(&mut connection)
                        .await
                        .unwrap();
                    assert!(reply.0.is_some() && reply.1.is_some());
                }
            }
        });
        rows[0].rounds.push(took.await);
        let took = concurrently(tasks, |count| {
            let (manager, text) = (manager.clone(), text.clone());
            async move {
                for _ in 0..count {
                    let user = manager
                        .check_token_or_update_user(&text, None)
                        .await
                        .unwrap();
                    assert!(user.is_some());
                }
            }
        });
        rows[1].rounds.push(took.await);
    }
    report(&format!("Check on Redis, {tasks} at a time"), &rows);
}

/// `check_token_or_update_user` of a thousand users in turn: in tables with nothing else, and in those with a million
/// sessions and cached users.
#[cfg(feature = "mysql")]
async fn check_on_mysql(tasks: usize) {
    use std::sync::Arc;

    use tower_bearer_session::MySqlStore;

    const USERS: usize = 1000;
    let server = harness::MariaDb::start_with(&["--innodb-buffer-pool-size=512M"]).await;
    let mut variants = Vec::new();
    for prefix in ["thousand_", "million_"] {
        let store = MySqlStore::builder(server.url()).table_prefix(prefix);
        let store = store
            .deadline(Duration::from_secs(10))
            .connect()
            .await
            .unwrap();
        store.migrate().await.unwrap();
        let manager = manager(store).await;
        let mut tokens = Vec::new();
        for user in 0..USERS {
            let token = manager
                .set_token(&format!("user-{user}"), None)
                .await
                .unwrap();
            let text = token.expose_secret().to_owned();
            let checked = manager.check_token_or_update_user(&text, None).await;
            assert!(checked.unwrap().is_some());
            tokens.push(text);
        }
        variants.push((manager, Arc::new(tokens)));
    }
    let end = "4102444800000";
    for rows in [
        format!("sessions SELECT CONCAT('user-', seq), UNHEX(MD5(seq)), 0, 0, {end}, NULL, NULL"),
        format!("users SELECT CONCAT('user-', seq), REPEAT('x', 100), {end}"),
    ] {
        let fill = format!("INSERT INTO million_{rows} FROM seq_1001_to_1000000");
        server.sql(&fill).await;
    }

    let mut rows = rows(&["a thousand sessions", "a million sessions"]);
    for _ in 0..ROUNDS {
        for (row, (manager, tokens)) in rows.iter_mut().zip(&variants) {
            let took = concurrently(tasks, |count| {
                let (manager, tokens) = (manager.clone(), Arc::clone(tokens));
                async move {
                    for turn in 0..count / 10 {
                        let token = &tokens[turn * 7919 % USERS];
                        let user = manager.check_token_or_update_user(token, None).await;
                        assert!(user.unwrap().is_some());
                    }
                }
            });
            row.rounds.push(took.await * 10);
        }
    }
    report(&format!("Check on MariaDB, {tasks} at a time"), &rows);
}

async fn manager(store: impl SessionStore) -> TokenManager<Profile> {
    let load = async |id: String| {
        let profile = Profile {
            email: format!("{id}@example.org"),
            name: id,
            roles: vec!["reader".to_owned(), "writer".to_owned()],
        };
        Ok::<_, Infallible>(Some(profile))
    };
    TokenManager::builder(store)
        .load_user(load)
        .build()
        .unwrap()
}

async fn requests<S>(mut service: S, request: impl Fn() -> Request<()>) -> Duration
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    const COUNT: u32 = 20_000;
    let requests: Vec<_> = (0..COUNT).map(|_| request()).collect();
    let start = Instant::now();
    for request in requests {
        std::future::poll_fn(|cx| service.poll_ready(cx))
            .await
            .unwrap();
        black_box(service.call(request).await.unwrap());
    }
    start.elapsed() / COUNT
}

/// The time for each operation when so many tasks do one after the other; `worker` does its share.
async fn concurrently<W>(tasks: usize, worker: impl Fn(usize) -> W) -> Duration
where
    W: Future<Output = ()> + Send + 'static,
{
    const COUNT: usize = 25_600;
    let start = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        running.spawn(worker(COUNT / tasks));
    }
    running.join_all().await;
    start.elapsed() / COUNT as u32
}

fn rows(names: &[&str]) -> Vec<Row> {
    let row = |name: &&str| Row {
        name: (*name).to_owned(),
        rounds: Vec::new(),
    };
    names.iter().map(row).collect()
}

/// Prints the group; the first row is what the others are compared with.
fn report(group: &str, rows: &[Row]) {
    println!("\n{group}\n");
    println!("| | time | ratio |\n|---|---|---|");
    for row in rows {
        let ratios = row.rounds.iter().zip(&rows[0].rounds);
        let ratio = median(ratios.map(|(one, base)| one.as_secs_f64() / base.as_secs_f64()));
        let nanos = median(row.rounds.iter().map(|time| time.as_nanos() as f64));
        println!("| {} | {nanos:.0} ns | {ratio:.2} |", row.name);
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
