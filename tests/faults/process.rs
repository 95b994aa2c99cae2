use std::time::Duration;

use tokio::time::sleep;

use super::{Load, service};
use crate::harness::{Flavor, RedisServer};

/// With these arguments a server that is killed forgets nothing that it has acknowledged. (With `everysec` a write may
/// wait for a slow disk, and its client does not.)
pub(super) const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// The server is killed and comes back, with its data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_restarted() {
    killed_and_restarted(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_is_killed_and_restarted() {
    killed_and_restarted(Flavor::Valkey).await;
}

async fn killed_and_restarted(flavor: Flavor) {
    let redis = RedisServer::start_with(flavor, &DURABLE).await;
    let server = service(&redis.url()).await;
    let mut load = Load::start(&server).await;
    for down in [Duration::ZERO, Duration::from_secs(2)] {
        redis.kill();
        load.suffers().await;
        sleep(down).await;
        redis.restart().await;
        load.recovers("restarted").await;
    }
    load.finish().await;
}

/// The server hangs with all its connections open, for less and for more than it takes to give them up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_frozen_and_thawed() {
    frozen_and_thawed(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_is_frozen_and_thawed() {
    frozen_and_thawed(Flavor::Valkey).await;
}

async fn frozen_and_thawed(flavor: Flavor) {
    let redis = RedisServer::start(flavor).await;
    let server = service(&redis.url()).await;
    let mut load = Load::start(&server).await;
    redis.freeze();
    sleep(Duration::from_millis(300)).await;
    redis.thaw();
    load.recovers("thawed after 300 ms").await;
    for frozen in [Duration::ZERO, Duration::from_secs(3)] {
        redis.freeze();
        load.suffers().await;
        sleep(frozen).await;
        redis.thaw();
        load.recovers("thawed").await;
    }
    load.finish().await;
}

/// A frozen server that never comes back, but is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_frozen_then_restarted() {
    let redis = RedisServer::start_with(Flavor::Redis, &DURABLE).await;
    let server = service(&redis.url()).await;
    let mut load = Load::start(&server).await;
    redis.freeze();
    load.suffers().await;
    redis.restart().await;
    load.recovers("restarted after a freeze").await;
    load.finish().await;
}

/// An outage that no request notices leaves no trace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_passes_an_idle_service_by() {
    let redis = RedisServer::start_with(Flavor::Redis, &DURABLE).await;
    let server = service(&redis.url()).await;
    let client = server.login("al", "phone").await;
    redis.kill();
    sleep(Duration::from_secs(1)).await;
    redis.restart().await;
    // Longer than the pause between two attempts to connect.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(client.status("/me").await, 200);
}
