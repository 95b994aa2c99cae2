//! A master that is lost, gives way or comes back, and sentinels that are lost, lag behind or refuse.
//!
//! What an asynchronous replication may lose is no fault of a store's: nobody writes in the moment before a master is
//! lost, unless the test is about that.

mod announcements;
mod confirm;
mod errors;
mod expanded;
mod fake;
mod health;
mod identity;
mod idle;
mod masters;
mod secured;
mod sentinels;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redis::Value;
use tokio::time::timeout;
use tower_bearer_session::{RedisStore, TokenManager};

use super::{LONG_TIMEOUT, Load, eventually, everything, is_unavailable, serve, service, within};
use crate::harness::{RedisServer, SentinelOptions, SentinelSet};

/// How long it may take until a store knows what all sentinels know: one poll, and what a busy machine needs.
const POLL: Duration = Duration::from_secs(2);

/// A service follows its sentinels within about a second, as documented: this is what a busy machine needs.
const FOLLOWED: Duration = Duration::from_secs(15);

/// A store of its own, which has more time than by default to connect.
async fn fresh_store(url: &str) -> RedisStore {
    let builder = RedisStore::builder(url).connect_timeout(LONG_TIMEOUT / 3);
    builder.connect().await.expect("a store")
}

/// A manager on such a store.
async fn manager(url: &str) -> TokenManager {
    TokenManager::new(fresh_store(url).await)
}

/// Whether the token is one of a live session.
async fn is_live(manager: &TokenManager, token: &str) -> bool {
    manager.check_token(token).await.expect("a check").is_some()
}

/// Waits until so many replicas have all that the master has.
async fn replicated(master: &RedisServer, replicas: u32) {
    let mut write_and_wait = redis::pipe();
    write_and_wait.cmd("SET").arg("replicated").arg(1).ignore();
    write_and_wait.cmd("WAIT").arg(replicas).arg(10_000);
    let mut client = master.client().await;
    let have: (u32,) = write_and_wait
        .query_async(&mut client)
        .await
        .expect("an answer");
    assert_eq!(have.0, replicas, "replicas that follow");
}

/// Lets the load go on without writes, and waits until the replicas have all that was acknowledged.
async fn quiesce(load: &mut Load, master: &RedisServer) {
    load.pause_writers().await;
    replicated(master, 2).await;
}

/// From now on the sentinels take a busy machine for nothing else, and do not give up a failover so soon: otherwise
/// another one could lose what is written.
async fn calm_down(set: &SentinelSet) {
    let set_to = ["SENTINEL", "SET", "mymaster"];
    let calm = [
        "down-after-milliseconds",
        "20000",
        "failover-timeout",
        "10000",
    ];
    for sentinel in running(set) {
        sentinel.cmd(&[&set_to[..], &calm].concat()).await;
    }
}

/// The sentinels that are neither dead nor frozen.
fn running(set: &SentinelSet) -> impl Iterator<Item = &RedisServer> {
    set.sentinels().iter().filter(|it| it.is_running())
}

/// The next master, when no sentinel is about to choose yet another one: two may be, on a busy machine.
async fn settled<'a>(set: &'a SentinelSet, old: &RedisServer) -> &'a RedisServer {
    set.new_master(old).await;
    calm_down(set).await;
    // One that is stuck is given up after the failover-timeout, several times over.
    within(4 * LONG_TIMEOUT, "the end of all failovers", async || {
        for sentinel in running(set) {
            let state = sentinel.cmd(&["SENTINEL", "MASTER", "mymaster"]).await;
            let state: HashMap<String, String> = redis::from_redis_value(state).expect("a state");
            if state["flags"] != "master" {
                return false;
            }
        }
        true
    })
    .await;
    set.new_master(old).await
}

/// Waits until a load without writers, which it lets write again, has suffered from the loss of a master, another one
/// is there, and all is well again.
async fn fails_over<'a>(
    set: &'a SentinelSet,
    old: &RedisServer,
    load: &mut Load,
    fault: &str,
) -> &'a RedisServer {
    let lost = Instant::now();
    load.resume_writers();
    load.suffers().await;
    let fine = load.next_fine_answer();
    load.pause_writers().await;
    set.new_master(old).await;
    let recovered = load.recovers(fault).await;
    assert!(recovered < FOLLOWED, "{fault}: {recovered:?}");
    let new = settled(set, old).await;
    load.resume_writers();
    let took = fine.await.expect("an answer") - lost;
    println!("{fault}: fine again {took:?} after it");
    new
}

/// Lets a sentinel replace a master that is fine; returns the next one.
async fn replace<'a>(
    set: &'a SentinelSet,
    old: &RedisServer,
    sentinel: &RedisServer,
) -> &'a RedisServer {
    for _ in 0..6 {
        let failover = redis::cmd("SENTINEL").arg(&["FAILOVER", "mymaster"]).take();
        // Refused while one is under way.
        let asked = failover.exec_async(&mut sentinel.client().await).await;
        // On a busy machine it may be given up.
        match timeout(LONG_TIMEOUT / 3, set.new_master(old)).await {
            Ok(new) => return new,
            Err(_) => println!("no failover yet: {asked:?}"),
        }
    }
    set.new_master(old).await
}

/// Does so again and again, until the server takes itself for a master no more.
async fn while_master(server: &RedisServer, mut work: impl AsyncFnMut()) {
    let mut client = server.client().await;
    // Who makes it a replica closes its connections.
    while let Ok(role) = redis::cmd("ROLE")
        .query_async::<Vec<Value>>(&mut client)
        .await
        && role[0] == Value::BulkString(b"master".into())
    {
        work().await;
    }
}

/// No store has used the server since its start, not even to try it out.
async fn assert_unused(server: &RedisServer) {
    let calls = server.command_calls().await;
    for command in ["get", "hget", "time", "evalsha", "eval", "hscan"] {
        assert_eq!(calls.get(command), None, "{command} was called: {calls:?}");
    }
}

/// The server's address, as health has it.
fn address(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}
