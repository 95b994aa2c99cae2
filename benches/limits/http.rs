//! Requests to an axum server.

use std::{convert::Infallible, net::SocketAddr, sync::mpsc, thread};

use axum::{Router, middleware, routing::get, serve::ListenerExt};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot};
use tower_bearer_session::{MemoryStore, SessionLayer, User};
use tower_http::validate_request::ValidateRequestHeaderLayer;

use super::{
    baseline,
    client::HttpClient,
    cpu::Cpu,
    harness::{Flavor, RedisServer},
    load::{CLIENT, HALF, Load, MOST, RATE, SERVER, one_thread},
    report::{Column, Report},
    rounds::{Rounds, Variant},
    system_under_test::{Profile, SystemUnderTest, USER},
};

const ROUNDS: usize = 51;
const CONNECTIONS: usize = 64;
const REQUESTS: usize = 6_400;
const BODY: &str = "hello";

// The threads of the server are the client of Redis.
pub(crate) const COLUMNS: [Column; 7] = [
    Column::median("requests/s", RATE, 0),
    Column::ratio("ratio", RATE),
    Column::median("p50 µs", HALF, 0),
    Column::median("p99 µs", MOST, 0),
    Column::median("server CPU µs", CLIENT, 2),
    Column::ratio("ratio", CLIENT),
    Column::median("Redis CPU µs", SERVER, 2),
];

pub(crate) fn run(report: &mut Report) {
    report.group(
        "HTTP",
        "Requests to an axum server with one thread, over 64 connections that stay open; the client is another thread \
         of the process. The middleware by hand is an `axum::middleware::from_fn` with the same pipeline, hash and JSON. \
         All handlers are the same and take nothing, but for the one that takes a `User`. The tables are of the same \
         rounds, each with another limit.",
    );
    let runtime = one_thread();
    let redis = runtime.block_on(RedisServer::start(Flavor::Redis));
    let (for_layer, for_hand) = (redis.url(), redis.url());
    let servers = [
        ("no authentication", Server::start(nobody)),
        ("static bearer token", Server::start(fixed_token)),
        (
            "SessionLayer, memory",
            Server::start(async || layered(plain(), SystemUnderTest::on(MemoryStore::new()).await)),
        ),
        (
            "middleware by hand, Redis",
            Server::start(async move || hand_written(&for_hand).await),
        ),
        (
            "SessionLayer, Redis",
            Server::start(async move || {
                layered(plain(), SystemUnderTest::on_redis(&for_layer).await)
            }),
        ),
        (
            "SessionLayer, memory, taking a `User`",
            Server::start(async || {
                layered(greeting(), SystemUnderTest::on(MemoryStore::new()).await)
            }),
        ),
    ];
    let rounds = requests(&runtime, &redis, &servers, ROUNDS);
    report.table("All", &COLUMNS, &rounds);
    report.table("Without Redis", &COLUMNS, &rounds.only(&[1, 2, 5]));
    report.table("With Redis", &COLUMNS, &rounds.only(&[3, 4]));
}

/// So many rounds of requests to these servers.
pub(crate) fn requests(
    runtime: &Runtime,
    redis: &RedisServer,
    servers: &[(&'static str, Server)],
    rounds: usize,
) -> Rounds<5> {
    let load = Load {
        runtime,
        tasks: CONNECTIONS,
        operations: REQUESTS,
        client: Cpu::OtherThreads,
        server: Cpu::of(redis),
    };
    let variant = |(name, server): &(&'static str, Server)| {
        let connecting = HttpClient::connect(server.address, &server.tokens, CONNECTIONS);
        let client = runtime.block_on(connecting);
        let load = &load;
        Variant::new(*name, move || client.run(load))
    };
    Rounds::measure(rounds, servers.iter().map(variant).collect())
}

/// A server on a thread of its own; stopped when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    tokens: Vec<String>,
    _running: oneshot::Sender<Infallible>,
}

impl Server {
    /// `app` makes the service, and tokens for it.
    pub(crate) fn start(app: impl AsyncFnOnce() -> (Router, Vec<String>) + Send + 'static) -> Self {
        let (ready, started) = mpsc::channel();
        let (running, stopped) = oneshot::channel();
        let serve = async move || {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (router, tokens) = app().await;
            let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
            tokio::spawn(async { axum::serve(listener, router).await });
            ready.send((address, tokens)).unwrap();
            // An error, when the other half is dropped.
            let _: Result<Infallible, _> = stopped.await;
        };
        // Its allocations are not counted, which would favor whoever makes few of them.
        thread::spawn(|| allocation_counter::opt_out(|| one_thread().block_on(serve())));
        let (address, tokens) = started.recv().expect("the server did not start");
        Self {
            address,
            tokens,
            _running: running,
        }
    }
}

pub(crate) fn plain() -> Router {
    Router::new().route("/", get(async || BODY))
}

fn greeting() -> Router {
    let greet = async |user: User<Profile>| {
        assert_eq!(user.detail().unwrap().name, USER);
        BODY
    };
    Router::new().route("/", get(greet))
}

async fn nobody() -> (Router, Vec<String>) {
    let subject = SystemUnderTest::on(MemoryStore::new()).await;
    (plain(), vec![subject.token])
}

pub(crate) async fn fixed_token() -> (Router, Vec<String>) {
    let (router, tokens) = nobody().await;
    #[expect(
        deprecated,
        reason = "it is the least that a check of a bearer token can cost"
    )]
    let layer = ValidateRequestHeaderLayer::bearer(&tokens[0]);
    (router.layer(layer), tokens)
}

fn layered(router: Router, subject: SystemUnderTest) -> (Router, Vec<String>) {
    (
        router.layer(SessionLayer::new(subject.manager)),
        vec![subject.token],
    )
}

async fn hand_written(url: &str) -> (Router, Vec<String>) {
    let subject = SystemUnderTest::on_redis(url).await;
    let connection = baseline::connect(url).await;
    let layer = middleware::from_fn_with_state(connection, baseline::middleware);
    (plain().layer(layer), vec![subject.token])
}
