use std::{
    fs,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tower_bearer_session::{RedisStore, TokenManager};

use super::{LONG_TIMEOUT, Load, eventually, patient_store, serve, service};
use crate::harness::{Flavor, Proxy, RedisServer};

/// A service that reaches its Redis through a proxy.
async fn through_a_proxy() -> (RedisServer, Proxy, super::Server) {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let server = service(&url(&proxy)).await;
    (redis, proxy, server)
}

/// Nothing listens any more where Redis was, and then again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_refused() {
    let (_redis, proxy, server) = through_a_proxy().await;
    let mut load = Load::start(&server).await;
    proxy.refuse(true);
    proxy.drop_connections().await;
    load.suffers().await;
    proxy.refuse(false);
    load.recovers("no longer refused").await;
    load.finish().await;
}

/// Connections that drop while the server is fine cost nobody an error but who is logging in: all other operations
/// are tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connections_go_unnoticed() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let server = serve(patient_store(&url(&proxy)).await).await;
    let mut load = Load::start(&server).await;
    for _ in 0..10 {
        proxy.drop_connections().await;
        load.recovers("dropped").await;
        // An operation that met this drop does not meet the next one.
        load.answers_each_client().await;
    }
    assert_eq!(load.unavailable_but_logins(), 0);
    load.finish().await;
}

/// The flows of one moment are lost without a sign, as behind a firewall that forgot them. New ones work, and
/// the service finds that out for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_flows_are_black_holed() {
    let (_redis, proxy, server) = through_a_proxy().await;
    let mut load = Load::start(&server).await;
    for _ in 0..2 {
        proxy.black_hole_existing();
        load.suffers().await;
        load.recovers("black-holed").await;
    }
    load.finish().await;
}

/// The same with one client only, whose requests come one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_client_gets_out_of_a_black_hole() {
    let (_redis, proxy, server) = through_a_proxy().await;
    let client = server.login("al", "phone").await;
    assert_eq!(client.status("/me").await, 200);
    proxy.black_hole_existing();
    let start = Instant::now();
    let mut failed = 0;
    loop {
        match client.status("/me").await {
            200 => break,
            503 => failed += 1,
            other => panic!("{other}"),
        }
        assert!(start.elapsed() < LONG_TIMEOUT);
    }
    println!("black-holed: {:?}, {failed} × 503", start.elapsed());
}

/// Only one of the store's two flows is lost, while the other goes on: whatever went over it recovers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_flows_is_black_holed() {
    for lost in [0, 1] {
        let redis = RedisServer::start(Flavor::Redis).await;
        let proxy = Proxy::start(redis.port()).await;
        let store = RedisStore::connect(url(&proxy)).await.unwrap();
        let manager: TokenManager = TokenManager::new(store);
        let token = manager.set_token("al", None).await.unwrap();
        let check = async || manager.check_token(token.expose_secret()).await.is_ok();
        let list = async || manager.list_user_tokens("al").await.is_ok();
        assert!(check().await && list().await);
        proxy.black_hole(lost);
        // Both are in use all the time, so that one goes on to be answered.
        let took = eventually("both work", async || {
            let (check, list) = tokio::join!(check(), list());
            check && list
        })
        .await;
        println!("flow {lost} lost: fine again after {took:?}");
    }
}

/// Flows that were given up are closed, although nothing ever comes back on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_flows_are_closed() {
    let (_redis, proxy, server) = through_a_proxy().await;
    let client = server.login("al", "phone").await;
    for _ in 0..2 {
        assert_eq!(client.status("/me").await, 200);
        // It may just be replacing its connection.
        eventually("one flow", async || flows_to(&proxy) == 1).await;
        proxy.black_hole_existing();
        eventually("recovery", async || client.status("/me").await == 200).await;
        eventually("the old flow closed", async || flows_to(&proxy) == 1).await;
    }
}

/// A partition: existing flows are lost, new ones do not come up; then it heals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_is_partitioned() {
    let (_redis, proxy, server) = through_a_proxy().await;
    let mut load = Load::start(&server).await;
    proxy.refuse(true);
    proxy.black_hole_existing();
    load.suffers().await;
    sleep(Duration::from_secs(2)).await;
    load.suffers().await;
    proxy.refuse(false);
    load.recovers("healed").await;
    load.finish().await;
}

/// A slow network makes slow answers, and no others: not one more per request that is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_takes_a_millisecond() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    proxy.set_delay(Duration::from_millis(1));
    let server = serve(patient_store(&url(&proxy)).await).await;
    let mut load = Load::start(&server).await;
    load.recovers("1 ms each way").await;
    proxy.set_delay(Duration::from_millis(100));
    load.recovers("100 ms each way").await;
    assert_eq!(load.unavailable(), 0);
    load.finish().await;
}

/// Answers that come after the deadline are nobody's: the service gives up in time, and recovers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_is_too_slow_for_a_while() {
    let (_redis, proxy, server) = through_a_proxy().await;
    let mut load = Load::start(&server).await;
    proxy.set_delay(Duration::from_millis(700));
    load.suffers().await;
    proxy.set_delay(Duration::ZERO);
    load.recovers("fast again").await;
    load.finish().await;
}

fn url(proxy: &Proxy) -> String {
    format!("redis://127.0.0.1:{}", proxy.port())
}

/// How many connections of this process are open to the proxy, by the kernel's table.
fn flows_to(proxy: &Proxy) -> usize {
    let table = fs::read_to_string("/proc/self/net/tcp").expect("Linux");
    let remote = format!(":{:04X}", proxy.port());
    // The fields are number, local address, remote address, state; 01 is "established".
    let fields = table.lines().map(|line| line.split_whitespace());
    fields
        .filter(|fields| {
            let mut fields = fields.clone().skip(2);
            fields.next().is_some_and(|it| it.ends_with(&remote)) && fields.next() == Some("01")
        })
        .count()
}
