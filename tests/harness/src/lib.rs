//! Real servers, which the tests start themselves: nothing has to run before, and nothing is skipped.

mod admin;
mod cluster;
pub mod fake;
mod mariadb;
mod migration;
mod process;
mod proxy;
mod redis;
mod sentinel;
mod tls;

use std::time::{Duration, Instant};

use tokio::time::sleep;

use self::process::Launch;
pub use self::{
    cluster::Cluster,
    mariadb::MariaDb,
    migration::Migration,
    process::Flavor,
    proxy::Proxy,
    redis::RedisServer,
    sentinel::{SentinelOptions, SentinelSet},
    tls::{Identity, Pki},
};

/// Starts three servers that differ in nothing but their ports.
async fn three(launch: Launch<'_>) -> [RedisServer; 3] {
    let start = || RedisServer::launch(launch);
    let (first, second, third) = tokio::join!(start(), start(), start());
    [first, second, third]
}

/// Asks again and again until there is an answer; `None` when there is none for 90 seconds.
async fn poll<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let answer = ask().await;
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Panics, with the log of each server.
fn fail<'a>(servers: impl IntoIterator<Item = &'a RedisServer>, problem: &str) -> ! {
    let logs: Vec<_> = servers.into_iter().map(RedisServer::described).collect();
    panic!("{problem}; the servers:\n{}", logs.join("\n"));
}
