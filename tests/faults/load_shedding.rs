//! A server that does not answer in time: checks are refused, and nothing else is.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tower_bearer_session::{ErrorKind, RedisStore, SessionStore, store::NewSession};

use super::eventually;
use crate::{
    harness::{Flavor, RedisServer},
    stores::{HOUR, token_id},
};

const PAUSE: Duration = Duration::from_millis(700);
const CHECKS: usize = 2000;

/// What has become of checks.
#[derive(Debug, Default)]
struct Checks {
    answered: usize,
    refused: usize,
    late: usize,
}

/// Lets the server pause while checks wait for it, so that the window of checks is small when it goes on.
async fn pause(redis: &RedisServer, store: &RedisStore) {
    let millis = PAUSE.as_millis().to_string();
    redis.cmd(&["CLIENT", "PAUSE", &millis]).await;
    let paused = burst(store, 64).await;
    assert!(paused.late > 0, "{paused:?}");
    tokio::time::sleep(PAUSE / 2).await;
}

/// So many checks at once.
async fn burst(store: &RedisStore, checks: usize) -> Checks {
    let mut burst = JoinSet::new();
    for _ in 0..checks {
        let store = store.clone();
        burst.spawn(async move { store.check("al", &token_id(1)).await });
    }
    let mut tally = Checks::default();
    for answer in burst.join_all().await {
        match answer {
            Ok(_) => tally.answered += 1,
            Err(error) if error.kind() == ErrorKind::Timeout => tally.late += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                assert!(error.to_string().contains("overloaded"), "{error:?}");
                tally.refused += 1;
            }
        }
    }
    tally
}

/// The refusals are counted. Logins, refreshes and logouts that begin among them are done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_are_refused_and_logins_refreshes_and_logouts_are_not() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let store = RedisStore::builder(redis.url()).connect().await.unwrap();
    let new = NewSession::new(HOUR);
    for id in 1..=20 {
        store.create("al", &token_id(id), &new, None).await.unwrap();
    }
    pause(&redis, &store).await;
    let before = store.health().refused_checks();
    let checks = tokio::spawn({
        let store = store.clone();
        async move { burst(&store, CHECKS).await }
    });
    let mut others = JoinSet::new();
    for id in 2..=20 {
        let (store, new) = (store.clone(), new.clone());
        others.spawn(async move {
            store.create("bo", &token_id(id), &new, None).await.unwrap();
            assert!(store.refresh("al", &token_id(id), HOUR).await.unwrap());
            assert!(store.delete("al", &token_id(id)).await.unwrap());
        });
    }
    others.join_all().await;
    let checks = checks.await.unwrap();
    println!("{checks:?}");
    assert!(checks.refused > 0 && checks.answered > 0, "{checks:?}");
    assert_eq!(
        store.health().refused_checks() - before,
        checks.refused as u64
    );
    assert_eq!(store.health().reconnects(), 0);
}

/// Without load shedding all are sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_load_shedding_none_is_refused() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let builder = RedisStore::builder(redis.url()).load_shedding(false);
    let store = builder.connect().await.unwrap();
    pause(&redis, &store).await;
    let checks = burst(&store, CHECKS).await;
    println!("{checks:?}");
    assert_eq!(checks.refused, 0, "{checks:?}");
    assert_eq!(store.health().refused_checks(), 0);
}

/// Twenty thousand checks at once, most of them for nobody while the server pauses: what was refused or late costs no
/// memory, and checks work again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_checks_meet_a_server_that_pauses() {
    for sheds_load in [false, true] {
        let redis = RedisServer::start(Flavor::Redis).await;
        let builder = RedisStore::builder(redis.url()).load_shedding(sheds_load);
        let store = builder.connect().await.unwrap();
        let (before, heap) = (burst(&store, 20_000).await, heap());
        let millis = PAUSE.as_millis().to_string();
        redis.cmd(&["CLIENT", "PAUSE", &millis]).await;
        let start = Instant::now();
        let during = burst(&store, 20_000).await;
        let took = start.elapsed();
        eventually("a server that goes on", async || store.ping().await.is_ok()).await;
        let after = burst(&store, 20_000).await;
        let grown = self::heap() - heap;
        println!(
            "load shedding {sheds_load}: before {before:?}, during {during:?} in {took:?}, after {after:?}; \
             {grown} kB more, {} reconnects",
            store.health().reconnects(),
        );
        eventually("all checks", async || {
            burst(&store, 10).await.answered == 10
        })
        .await;
        assert!(grown < 64 * 1024, "{grown} kB");
    }
}

/// The memory of this process that is in use, in kB.
fn heap() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = rss.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse().unwrap()
}
