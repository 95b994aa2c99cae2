//! What becomes of the near-cache when the connection reaches its maximum age.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tower_bearer_session::{RedisStore, SessionStore};

use super::{LONG_TIMEOUT, is_hit, lasting, warm};
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::{log_in, token_id},
};

const MAX_AGE: Duration = Duration::from_millis(200);

/// A store that connects to this port, with these credentials.
async fn aging(credentials: &str, port: u16) -> RedisStore {
    RedisStore::builder(format!("redis://{credentials}127.0.0.1:{port}"))
        .near_cache(lasting())
        .max_connection_age(MAX_AGE)
        .connect_timeout(LONG_TIMEOUT)
        .deadline(LONG_TIMEOUT)
        .connect()
        .await
        .unwrap()
}

/// When the connection in use was made.
fn connected_at(store: &RedisStore) -> Option<std::time::SystemTime> {
    store.health().primaries()[0].connected_at()
}

/// Gives the account of `sessions` all rights, but for this change.
async fn set_right(server: &RedisServer, right: &str) {
    let account = [
        "ACL",
        "SETUSER",
        "sessions",
        "on",
        ">password",
        "~*",
        "+@all",
    ];
    server.cmd(&[&account[..], &[right]].concat()).await;
}

/// How many connections the server has accepted so far.
async fn connections(server: &RedisServer) -> u32 {
    let info = server.cmd(&["INFO", "stats"]).await;
    let info: String = redis::from_redis_value(info).unwrap();
    let accepted = info
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"));
    accepted.unwrap().parse().unwrap()
}

/// A new connection every now and then shows that the address leads to the same server, and is given up.
#[tokio::test]
async fn a_connection_to_the_same_server_stays_with_what_was_read_on_it() {
    let server = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let store = aging("", proxy.port()).await;
    let (id, connected) = (token_id(1), connected_at(&store));
    let before = connections(&server).await;
    log_in(&store, "al", &id).await;
    warm(&store, "al", &id).await;
    let until = Instant::now() + 5 * MAX_AGE;
    while Instant::now() < until {
        assert!(is_hit(&store, "al", &id));
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(connected_at(&store), connected);
    // Each look at the number is one, too.
    assert!(
        connections(&server).await > before + 2,
        "no other one was tried"
    );
    assert_eq!(store.health().reconnects(), 0);
    // Announcements come as before.
    assert!(store.delete("al", &id).await.unwrap());
    assert!(!is_hit(&store, "al", &id));
}

/// The old server goes on to serve its open connections, and knows nothing of a logout at the new one.
#[tokio::test]
async fn a_connection_to_another_server_replaces_it_with_all_that_was_read() {
    let (old, new) = (
        RedisServer::start(Flavor::Redis).await,
        RedisServer::start(Flavor::Redis).await,
    );
    let proxy = Proxy::start(old.port()).await;
    let store = aging("", proxy.port()).await;
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    warm(&store, "al", &id).await;
    proxy.redirect(new.port());
    crate::eventually("no hit", async || !is_hit(&store, "al", &id)).await;
    assert!(store.check("al", &id).await.unwrap().is_none());
}

/// The run of a server ends with its process: what was read before is void, although the address is the same.
#[tokio::test]
async fn a_server_that_was_started_anew_is_another_one() {
    let server = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let store = aging("", proxy.port()).await;
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    warm(&store, "al", &id).await;
    server.kill();
    server.restart().await;
    crate::eventually("an answer", async || store.check("al", &id).await.is_ok()).await;
    assert!(!is_hit(&store, "al", &id));
}

/// A right that is granted later is used, although the address leads to the same server.
#[tokio::test]
async fn a_server_that_begins_to_announce_changes_is_used() {
    let server = RedisServer::start(Flavor::Redis).await;
    set_right(&server, "-client|tracking").await;
    let store = aging("sessions:password@", server.port()).await;
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    sleep(3 * MAX_AGE).await;
    assert!(store.check("al", &id).await.unwrap().is_some() && !is_hit(&store, "al", &id));
    set_right(&server, "+client|tracking").await;
    warm(&store, "al", &id).await;
}

/// Without the right to ask for the run of the server, nobody knows whether it is another one.
#[tokio::test]
async fn without_info_a_connection_is_replaced() {
    let server = RedisServer::start(Flavor::Redis).await;
    set_right(&server, "-info").await;
    let store = aging("sessions:password@", server.port()).await;
    let (id, connected) = (token_id(1), connected_at(&store));
    log_in(&store, "al", &id).await;
    warm(&store, "al", &id).await;
    crate::eventually("another connection", async || {
        connected_at(&store) != connected
    })
    .await;
    warm(&store, "al", &id).await;
}
