//! A check on Redis.

use std::{
    convert::Infallible,
    future::{poll_fn, ready},
    sync::Arc,
};

use ::http::{Extensions, Request, Response, header::AUTHORIZATION};
use tower::{Layer, Service, service_fn};
use tower_bearer_session::SessionLayer;

use super::{
    baseline,
    cpu::{self, Cpu},
    harness::{Flavor, RedisServer},
    load::{COLUMNS, Laps, Load, many_threads},
    report::Report,
    rounds::{Rounds, Variant},
    system_under_test::{self, SystemUnderTest},
};

/// Tasks, operations of all together, and rounds. Rounds are short where it counts whether the kernel just has client
/// and server on one CPU or on two.
const LOADS: [(usize, usize, usize); 4] = [
    (1, 200, 301),
    (4, 800, 301),
    (64, 6_400, 61),
    (256, 6_400, 61),
];
/// More than a manager remembers.
const USERS: usize = 10_000;

pub(crate) fn run(report: &mut Report) {
    report.group(
        "A check on Redis",
        "The limit is the pipeline `TIME`, `HGET`, `GET` by hand, on one multiplexed connection. The layer is around a \
         tower service that does nothing.",
    );
    let runtime = many_threads();
    let server = runtime.block_on(RedisServer::start(Flavor::Redis));
    report.redis_version(cpu::info(&server, "server", "redis_version"));
    let subject = runtime.block_on(SystemUnderTest::on_redis(&server.url()));
    let connection = runtime.block_on(baseline::connect(&server.url()));
    for (tasks, operations, rounds) in LOADS {
        let load = Load {
            runtime: &runtime,
            tasks,
            operations,
            client: Cpu::Own,
            server: Cpu::of(&server),
        };
        let baseline = || load.run(|laps| baseline::checks(&connection, &subject, laps));
        let variants = vec![
            Variant::new("pipeline by hand", baseline),
            Variant::new("check_token_or_update_user", || {
                load.run(|laps| subject.checks(laps))
            }),
            Variant::new("SessionLayer", || load.run(|laps| requests(&subject, laps))),
        ];
        let rounds = Rounds::measure(rounds, variants);
        report.table(&format!("{tasks} at a time"), &COLUMNS, &rounds);
    }
    let users: Arc<[SystemUnderTest]> = runtime.block_on(subject.others(USERS)).into();
    let load = Load {
        runtime: &runtime,
        tasks: 64,
        operations: 6_400,
        client: Cpu::Own,
        server: Cpu::of(&server),
    };
    let variants = vec![
        Variant::new("pipeline by hand", || {
            load.run(|laps| baseline::checks_in_turn(&connection, &users, laps))
        }),
        Variant::new("check_token_or_update_user", || {
            load.run(|laps| system_under_test::checks_in_turn(&users, laps))
        }),
    ];
    let rounds = Rounds::measure(31, variants);
    report.table("64 at a time, of 10,000 users", &COLUMNS, &rounds);
}

/// Sends a request to a service behind the layer, again and again.
fn requests(subject: &SystemUnderTest, mut laps: Laps) -> impl Future<Output = Laps> + use<> {
    let layer = SessionLayer::new(subject.manager.clone());
    // It hands the request back, as making another one is no work of the layer.
    let mut service = layer.layer(service_fn(|request: Request<()>| {
        ready(Ok::<_, Infallible>(Response::new(request)))
    }));
    let bearer = format!("Bearer {}", subject.token);
    let request = Request::builder().header(AUTHORIZATION, bearer).body(());
    let mut request = request.unwrap();
    async move {
        while laps.next() {
            poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
            let response = service.call(request).await.unwrap();
            assert!(response.status().is_success());
            request = response.into_body();
            *request.extensions_mut() = Extensions::new();
        }
        laps
    }
}
