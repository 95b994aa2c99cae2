//! A server that is slow is not taken for one that is dead, and one that is dead is noticed, whether or not anybody
//! asks.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};
use tower_bearer_session::{ErrorKind, RedisStore, SessionStore, TokenManager};

use super::{eventually, is_unavailable, within};
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::token_id,
};

/// A store that nobody uses notices that its server hangs, and that it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_store_notices_a_frozen_server() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let store = RedisStore::connect(redis.url()).await.unwrap();
    for _ in 0..2 {
        redis.freeze();
        let limit = Duration::from_secs(15);
        let took = within(limit, "a loss", async || !store.is_connected()).await;
        println!("the freeze shows after {took:?}");
        let health = store.health();
        assert!(health.last_error().is_some());
        let error = store.get_user("al").await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
        redis.thaw();
        let took = eventually("a connection", async || store.is_connected()).await;
        println!("the thaw shows after {took:?}");
        store.get_user("al").await.unwrap();
    }
}

/// A store that nobody uses notices that its flow is lost without a sign, and takes a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_store_leaves_a_black_hole() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    // The connection is not old when the server is found to be silent.
    let builder = RedisStore::builder(url).max_connection_age(Duration::from_secs(3600));
    let store = builder.connect().await.unwrap();
    proxy.black_hole_existing();
    let reconnected = async || store.health().reconnects() > 0;
    let took = eventually("a new connection", reconnected).await;
    println!("a new connection after {took:?}");
    store.ping().await.unwrap();
}

/// A ping is answered as long as there is a server, and ends within its deadline when there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_tells_whether_the_server_answers() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let store = RedisStore::connect(redis.url()).await.unwrap();
    store.ping().await.unwrap();
    redis.freeze();
    assert_eq!(
        store.ping().await.unwrap_err().kind(),
        ErrorKind::Timeout,
        "from a frozen server"
    );
    redis.kill();
    let error = store.ping().await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
    redis.restart().await;
    eventually("a ping", async || store.ping().await.is_ok()).await;
}

/// A batch of lookups that is answered late says nothing against the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_batches_do_not_replace_a_connection() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let builder = RedisStore::builder(redis.url()).deadline(Duration::from_millis(100));
    // So that all are sent.
    let store = builder.load_shedding(false).connect().await.unwrap();
    for _ in 0..4 {
        redis.cmd(&["CLIENT", "PAUSE", "300"]).await;
        let late = burst(&store, 64).await;
        assert!(late > 3, "{late} of 64 checks were late");
        eventually("an answer", async || store.ping().await.is_ok()).await;
    }
    assert_kept(&store);
}

/// A server that sleeps 50 ms at a time under a burst of checks is late for most of them, but answers: it keeps its
/// connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_under_a_burst_is_not_reconnected_to() {
    let redis = RedisServer::start_with(Flavor::Redis, &["--enable-debug-command", "yes"]).await;
    let builder = RedisStore::builder(redis.url()).deadline(Duration::from_millis(40));
    let store = builder.load_shedding(false).connect().await.unwrap();
    let mut client = redis.client().await;
    let sleeping = tokio::spawn(async move {
        let nap = redis::cmd("DEBUG").arg("SLEEP").arg("0.05").take();
        loop {
            nap.exec_async(&mut client).await.expect("a nap");
        }
    });
    let mut late = 0;
    for _ in 0..5 {
        late += burst(&store, 4000).await;
    }
    sleeping.abort();
    println!("{late} of 20,000 checks were late");
    assert!(late > 100, "{late} late checks");
    eventually("an answer", async || store.ping().await.is_ok()).await;
    assert_kept(&store);
}

fn assert_kept(store: &RedisStore) {
    let health = store.health();
    assert_eq!(health.reconnects(), 0, "{:?}", health.last_error());
}

/// So many checks at once; returns how many of them got no answer in time.
async fn burst(store: &RedisStore, checks: usize) -> usize {
    let mut burst = JoinSet::new();
    for _ in 0..checks {
        let store = store.clone();
        burst.spawn(async move { store.check("al", &token_id(1)).await });
    }
    let failed = |answer: &Result<_, tower_bearer_session::Error>| match answer {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
            true
        }
    };
    let answers = burst.join_all().await;
    answers.iter().filter(|answer| failed(answer)).count()
}

/// A store whose runtime has ended has no connection, and does not claim one.
#[test]
fn a_store_outside_its_runtime_is_not_connected() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = runtime.block_on(RedisServer::start(Flavor::Redis));
    let store = runtime.block_on(RedisStore::connect(redis.url())).unwrap();
    assert!(store.is_connected());
    drop(runtime);
    assert!(!store.is_connected());
    assert!(!store.health().is_connected());
}

/// A list that would take for ever ends with an error, although each of its pages is answered in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_an_overall_deadline() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let builder = RedisStore::builder(url).deadline(Duration::from_secs(1));
    let manager: TokenManager = TokenManager::new(builder.connect().await.unwrap());
    manager.set_token("al", None).await.unwrap();
    // Fields that are no sessions are skipped, and take as long to read.
    let fill = "for i = 1, 200000 do redis.call('HSET', KEYS[1], i, '') end";
    redis.cmd(&["EVAL", fill, "1", "tbs:tokens:{al}"]).await;
    proxy.set_delay(Duration::from_millis(100));
    let start = Instant::now();
    let error = manager.list_user_tokens("al").await.unwrap_err();
    println!("{error} after {:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.to_string().contains("list"), "{error}");
}

/// A list of many sessions that takes longer than a connection is used for new work is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_is_read_from_one_server() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let builder = RedisStore::builder(url).deadline(Duration::from_secs(5));
    let manager: TokenManager = TokenManager::new(builder.connect().await.unwrap());
    manager.set_token("al", None).await.unwrap();
    let fill = "for i = 1, 50000 do redis.call('HSET', KEYS[1], i, '') end";
    redis.cmd(&["EVAL", fill, "1", "tbs:tokens:{al}"]).await;
    proxy.set_delay(Duration::from_millis(60));
    let start = Instant::now();
    let list = manager.list_user_tokens("al").await.unwrap();
    println!("listed within {:?}", start.elapsed());
    assert_eq!(list.len(), 1);
    assert!(start.elapsed() > Duration::from_secs(10), "a long list");
}
