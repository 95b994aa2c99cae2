//! Connections to one server, which are made in turns.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tower_bearer_session::{RedisStore, SessionStore};

use super::LONG_TIMEOUT;
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::{is_live, log_in, token_id},
};

/// How long an attempt to connect may take.
const ATTEMPT: Duration = Duration::from_secs(4);

/// The address leads to a server that accepts connections and never answers, while the old server goes on serving:
/// each connection stays in use while it waits for its turn to be replaced, and while the attempt lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_wait_for_their_turn_to_be_replaced_stay_in_use() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let store = RedisStore::builder(url)
        .deadline(LONG_TIMEOUT)
        .connect_timeout(ATTEMPT)
        .max_connection_age(ATTEMPT / 8);
    let store = store.connect().await.unwrap();
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    // The second connection.
    assert_eq!(store.list("al").await.unwrap().len(), 1);
    proxy.redirect(silent.local_addr().unwrap().port());
    let (start, mut slowest) = (Instant::now(), [Duration::ZERO; 2]);
    // Each connection has waited for the other one, and for its own attempt after that.
    while start.elapsed() < ATTEMPT * 13 / 4 {
        let began = Instant::now();
        let check = async {
            assert!(is_live(&store, "al", &id).await);
            began.elapsed()
        };
        let list = async {
            assert_eq!(store.list("al").await.unwrap().len(), 1);
            began.elapsed()
        };
        let took = <[Duration; 2]>::from(tokio::join!(check, list));
        for (slowest, took) in slowest.iter_mut().zip(took) {
            *slowest = took.max(*slowest);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("slowest: {slowest:?}");
    assert!(
        slowest.iter().all(|took| *took < ATTEMPT / 2),
        "{slowest:?}"
    );
}
