//! What the layer adds to a tower service that does nothing.
//!
//! The allocator of this program counts what the threads of all groups allocate, at a few nanoseconds each; here it
//! does not while time is measured.

use std::{
    convert::Infallible,
    future::{poll_fn, ready},
    hint::black_box,
    time::Instant,
};

use ::http::{Request, Response, header::AUTHORIZATION};
use tokio::runtime::Runtime;
use tower::{Layer, Service, service_fn};
use tower_bearer_session::{MemoryStore, SessionLayer};

use super::{
    in_process, load,
    report::{Column, Report},
    rounds::{Rounds, Variant},
    system_under_test::{SystemUnderTest, USER},
};

const ROUNDS: usize = 31;
/// Few enough for the cache of a CPU.
const BATCH: usize = 250;
const BATCHES: usize = 40;

const NANOS: usize = 0;
const ALLOCATIONS: usize = 1;
const COLUMNS: [Column; 4] = [
    Column::median("ns per request", NANOS, 0),
    Column::ratio("ratio", NANOS),
    Column::difference("ns more", NANOS, 0),
    Column::difference("allocations more", ALLOCATIONS, 2),
];

pub(crate) fn run(report: &mut Report) {
    report.group(
        "Overhead",
        "`SessionLayer` in required mode on `MemoryStore`, around a tower service that does nothing. The map by hand is that \
         of *In the process*, with one user.",
    );
    let runtime = load::one_thread();
    let SystemUnderTest { manager, token, .. } =
        runtime.block_on(SystemUnderTest::on(MemoryStore::new()));
    let bare = service_fn(|request: Request<()>| {
        black_box(&request);
        ready(Ok::<_, Infallible>(Response::new(())))
    });
    let layered = SessionLayer::new(manager).layer(bare);
    let by_hand = in_process::by_hand(vec![(token.clone(), USER.to_owned())]).layer(bare);
    let bearer = format!("Bearer {token}");
    let with = |bearer: &str| {
        let request = Request::builder().header(AUTHORIZATION, bearer);
        request.body(()).unwrap()
    };
    let live = || with(&bearer);
    let malformed = || with("Bearer tbs1.x.y");
    let missing = || Request::new(());
    let runtime = &runtime;
    let variants = vec![
        Variant::new("bare service", || round(runtime, bare, live)),
        Variant::new("map by hand", || round(runtime, by_hand.clone(), live)),
        Variant::new("live token", || round(runtime, layered.clone(), live)),
        Variant::new("malformed token", || {
            round(runtime, layered.clone(), malformed)
        }),
        Variant::new("no token", || round(runtime, layered.clone(), missing)),
    ];
    report.table("Request with", &COLUMNS, &Rounds::measure(ROUNDS, variants));
}

fn round<S>(runtime: &Runtime, mut service: S, request: impl Fn() -> Request<()>) -> [f64; 2]
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    let batch = || (0..BATCH).map(|_| request()).collect::<Vec<_>>();
    let mut nanos = 0.0;
    allocation_counter::opt_out(|| {
        for _ in 0..BATCHES {
            let requests = batch();
            let start = Instant::now();
            runtime.block_on(serve(&mut service, requests));
            nanos += start.elapsed().as_secs_f64() * 1e9;
        }
    });
    let requests = batch();
    let counted = allocation_counter::measure(|| runtime.block_on(serve(&mut service, requests)));
    [
        nanos / (BATCH * BATCHES) as f64,
        counted.count_total as f64 / BATCH as f64,
    ]
}

async fn serve<S>(service: &mut S, requests: Vec<Request<()>>)
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    for request in requests {
        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        black_box(service.call(request).await.unwrap());
    }
}
