//! Checks with a near-cache while another service writes, and how soon it learns of a logout.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use ::http::{Request, Response, header::AUTHORIZATION};
use tower::{Layer, ServiceExt, service_fn};

use tower_bearer_session::{
    NearCache, RedisStore, Session, SessionLayer, SessionStore, TokenId, TokenManager,
    store::NewSession,
};

use super::{
    cpu::Cpu,
    harness::{Flavor, RedisServer},
    load::{CLIENT, Figures, HALF, Laps, Load, MOST, RATE, many_threads, one_thread},
    report::{Column, Report},
    rounds::{Rounds, Variant},
    system_under_test::{DEADLINE, Profile, SystemUnderTest, in_turn, manager, redis_store},
};

const USERS: usize = 10_000;
const ROUNDS: usize = 31;
const HITS: usize = 5;
const COLUMNS: [Column; 6] = [
    Column::median("operations/s", RATE, 0),
    Column::ratio("ratio", RATE),
    Column::median("p50 µs", HALF, 1),
    Column::median("p99 µs", MOST, 0),
    Column::median("client CPU µs", CLIENT, 2),
    Column::median("hits, % of checks", HITS, 1),
];

const LOGOUTS: usize = 200;
const LAGS: [Column; 3] = [
    Column::median("p50 µs", 0, 0),
    Column::median("p99 µs", 1, 0),
    Column::max("at most", 2, 0),
];

const BYTES: [Column; 1] = [Column::median("bytes per stream", 0, 0)];

pub(crate) fn run(report: &mut Report) {
    report.group(
        "Near-cache",
        "Checks of 10,000 users in turn by 64 tasks; of all operations, so many are refreshes by another service without a \
         near-cache. Each makes the next check of its user a miss.",
    );
    let runtime = many_threads();
    let server = runtime.block_on(RedisServer::start(Flavor::Redis));
    let near = |settings: NearCache| async {
        let builder = RedisStore::builder(server.url()).deadline(DEADLINE);
        builder.near_cache(settings).connect().await.unwrap()
    };
    let (plain, cached, per_key) = runtime.block_on(async {
        (
            redis_store(&server.url()).await,
            near(NearCache::new()).await,
            near(NearCache::new().per_key()).await,
        )
    });
    let users: Arc<[SystemUnderTest]> = runtime.block_on(async {
        let subject = SystemUnderTest::on(cached.clone()).await;
        subject.others(USERS).await.into()
    });
    let elsewhere = manager(plain.clone());
    let without = with_manager(&users, &elsewhere);
    let load = Load {
        runtime: &runtime,
        tasks: 64,
        operations: 12_800,
        client: Cpu::Own,
        server: Cpu::of(&server),
    };
    let variant = |name, users: &Arc<[SystemUnderTest]>, every: Option<usize>| {
        let (users, cached) = (Arc::clone(users), cached.clone());
        let (elsewhere, load) = (elsewhere.clone(), &load);
        Variant::new(name, move || {
            let hits = || cached.health().near_cache().unwrap().hits;
            let before = hits();
            // Of all tasks.
            let turn = Arc::new(AtomicUsize::new(1));
            let figures: Figures = load.run(|mut laps: Laps| {
                let (users, elsewhere) = (Arc::clone(&users), elsewhere.clone());
                let turn = Arc::clone(&turn);
                async move {
                    let mut turns = in_turn(&users);
                    while laps.next() {
                        let turn = turn.fetch_add(1, Ordering::Relaxed);
                        let user = turns.next().unwrap();
                        match every {
                            Some(every) if turn.is_multiple_of(every) => {
                                let refreshed = elsewhere.refresh_token(&user.token, None);
                                assert!(refreshed.await.unwrap());
                            }
                            _ => user.check().await,
                        }
                    }
                    laps
                }
            });
            let writes = every.map_or(0, |every| load.operations / every);
            let checks = (load.operations - writes) as f64;
            let [rate, half, most, client, server] = figures;
            let hits = 100.0 * (hits() - before) as f64 / checks;
            [rate, half, most, client, server, hits]
        })
    };
    let variants = vec![
        variant("no near-cache, 1 % writes", &without, Some(100)),
        variant("no writes", &users, None),
        variant("0.1 % writes", &users, Some(1000)),
        variant("1 % writes", &users, Some(100)),
        variant("10 % writes", &users, Some(10)),
    ];
    let rounds = Rounds::measure(ROUNDS, variants);
    report.table("64 at a time, of 10,000 users", &COLUMNS, &rounds);

    let lags = |name, store: &RedisStore| {
        let (store, plain, runtime) = (store.clone(), plain.clone(), &runtime);
        Variant::new(name, move || runtime.block_on(lags(&plain, &store)))
    };
    let variants = vec![lags("broadcast", &cached), lags("per key", &per_key)];
    let rounds = Rounds::measure(5, variants);
    report.table(
        "From the reply to a logout to the last hit elsewhere",
        &LAGS,
        &rounds,
    );

    let streams = Variant::new("10,000 streams of as many sessions", || {
        [runtime
            .block_on(sessions(&users))
            .as_deref()
            .map_or(0.0, bytes_per_stream)]
    });
    let streams = Rounds::once(vec![streams]);
    report.table(
        "Streams that wait for the end of their session",
        &BYTES,
        &streams,
    );
}

/// The sessions of all users, as handlers get them.
async fn sessions(users: &[SystemUnderTest]) -> Option<Vec<Session<Profile>>> {
    let handler = service_fn(async |mut request: Request<()>| {
        let session = request.extensions_mut().remove::<Session<Profile>>();
        Ok::<_, Infallible>(Response::new(session))
    });
    let mut sessions = Vec::new();
    for user in users {
        let layer = SessionLayer::new(user.manager.clone());
        let request = Request::builder().header(AUTHORIZATION, format!("Bearer {}", user.token));
        let response = layer.layer(handler).oneshot(request.body(()).unwrap());
        sessions.push(response.await.unwrap().into_body()?);
    }
    Some(sessions)
}

/// What is allocated for a stream that waits, with its share of the watch over its session.
fn bytes_per_stream(sessions: &[Session<Profile>]) -> f64 {
    let (runtime, mut streams) = (one_thread(), Vec::with_capacity(sessions.len()));
    let opened = allocation_counter::measure(|| {
        runtime.block_on(async {
            for session in sessions {
                let mut stream = session.revoked();
                let is_over = poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll(cx).is_ready()));
                assert!(!is_over.await);
                streams.push(stream);
            }
            // Until each has been checked, and waits.
            tokio::time::sleep(Duration::from_secs(1)).await;
        });
    });
    opened.bytes_current as f64 / streams.len() as f64
}

/// The same users by another manager.
fn with_manager(
    users: &[SystemUnderTest],
    manager: &TokenManager<Profile>,
) -> Arc<[SystemUnderTest]> {
    let user = |user: &SystemUnderTest| SystemUnderTest {
        manager: manager.clone(),
        ..user.clone()
    };
    users.iter().map(user).collect()
}

/// For how long after a logout by one store the other one takes the token for live.
async fn lags(plain: &RedisStore, near: &RedisStore) -> [f64; 3] {
    let id = TokenId::from_bytes(&[7; 16]);
    let new = NewSession::new(DEADLINE * 10);
    let is_hit = |user: &str| near.check_now(user, &id).is_some();
    let mut lags = Vec::new();
    for n in 0..LOGOUTS {
        let user = format!("lag-{n}");
        plain.create(&user, &id, &new, None).await.unwrap();
        while !is_hit(&user) {
            near.check(&user, &id).await.unwrap();
        }
        plain.delete(&user, &id).await.unwrap();
        let (acknowledged, mut last) = (Instant::now(), 0.0);
        loop {
            let begun = acknowledged.elapsed();
            if !is_hit(&user) {
                break;
            }
            last = begun.as_secs_f64() * 1e6;
            std::thread::yield_now();
        }
        lags.push(last);
    }
    lags.sort_by(f64::total_cmp);
    [
        lags[LOGOUTS / 2],
        lags[LOGOUTS * 99 / 100],
        lags[LOGOUTS - 1],
    ]
}
