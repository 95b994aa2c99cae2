//! How long a store waits for a server that is slow or gone.

use std::time::Duration;

use tokio::time::Instant;
use tower_bearer_session::{ErrorKind, RedisStore, TokenManager};

use super::{eventually, is_unavailable};
use crate::harness::{Flavor, Proxy, RedisServer};

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

/// A list that would take for ever ends with an error, although each of its pages is answered in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_an_overall_deadline() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let builder = RedisStore::builder(url).deadline(Duration::from_millis(400));
    let manager: TokenManager = TokenManager::new(builder.connect().await.unwrap());
    manager.set_token("al", None).await.unwrap();
    // Fields that are no sessions are skipped, and take as long to read.
    let fill = "for i = 1, 200000 do redis.call('HSET', KEYS[1], i, '') end";
    redis.cmd(&["EVAL", fill, "1", "tbs:tokens:{al}"]).await;
    proxy.set_delay(Duration::from_millis(30));
    let start = Instant::now();
    let error = manager.list_user_tokens("al").await.unwrap_err();
    println!("{error} after {:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.to_string().contains("list"), "{error}");
}
