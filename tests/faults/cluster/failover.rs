use super::{
    super::{Load, eventually, service},
    replicated, sessions_key,
};
use crate::{
    Server,
    harness::{Cluster, Flavor, RedisServer},
};

/// Users of the load on different primaries, the second of which has logged out.
const USERS: [&str; 2] = ["probe", "left"];

/// A primary is killed: its replica takes over, and it comes back as a replica itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_primary_is_killed_and_restarted() {
    killed_and_restarted(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valkey_primary_is_killed_and_restarted() {
    killed_and_restarted(Flavor::Valkey).await;
}

async fn killed_and_restarted(flavor: Flavor) {
    let cluster = Cluster::start(flavor).await;
    let server = service(&cluster.url()).await;
    let mut load = Load::start(&server).await;
    for user in USERS {
        let old = about_to_fail(&cluster, &mut load, user).await;
        old.kill();
        fails_over(&cluster, &server, &mut load, user, old).await;
        old.restart().await;
        cluster.wait_until_whole().await;
        load.recovers("the old primary is back").await;
    }
    load.finish().await;
}

/// A primary hangs, with all its connections open: its replica takes over while it still hangs, and what it says
/// when it goes on, as if nothing had happened, does no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_primary_is_frozen_and_thawed() {
    frozen_and_thawed(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valkey_primary_is_frozen_and_thawed() {
    frozen_and_thawed(Flavor::Valkey).await;
}

async fn frozen_and_thawed(flavor: Flavor) {
    let cluster = Cluster::start(flavor).await;
    let server = service(&cluster.url()).await;
    let mut load = Load::start(&server).await;
    for user in USERS {
        let old = about_to_fail(&cluster, &mut load, user).await;
        old.freeze();
        fails_over(&cluster, &server, &mut load, user, old).await;
        assert!(!old.is_running());
        old.thaw();
        load.recovers("the old primary goes on").await;
        cluster.wait_until_whole().await;
        load.recovers("the old primary is a replica").await;
    }
    load.finish().await;
}

/// A replica takes over on demand, as before maintenance, and later gives the slots back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_take_over_as_planned() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let server = service(&cluster.url()).await;
    let mut load = Load::start(&server).await;
    let (primaries, replicas) = cluster.nodes().split_at(3);
    for user in ["stays0", "stays1", "stays2"] {
        let key = sessions_key(user);
        let old = cluster.primary_of(&key).await;
        let mut pairs = primaries.iter().zip(replicas);
        let is_old = |(primary, _): &(&RedisServer, &RedisServer)| primary.port() == old.port();
        let (_, replica) = pairs.find(is_old).expect("one of the first three");
        for (from, to) in [(old, replica), (replica, old)] {
            let before = load.unavailable();
            to.cmd(&["CLUSTER", "FAILOVER"]).await;
            cluster.new_primary(&key, from).await;
            load.recovers("taken over as planned").await;
            println!("planned: {} × 503", load.unavailable() - before);
            cluster.wait_until_whole().await;
        }
    }
    load.finish().await;
}

/// The primary of this user, when its replica has all that was acknowledged; what it acknowledges from now on is
/// nothing that a failover must not undo.
async fn about_to_fail<'a>(cluster: &'a Cluster, load: &mut Load, user: &str) -> &'a RedisServer {
    load.pause_writers().await;
    let primary = cluster.primary_of(&sessions_key(user)).await;
    replicated(primary, user).await;
    primary
}

/// Waits until another primary has taken over from this one, which just failed.
async fn fails_over(
    cluster: &Cluster,
    server: &Server,
    load: &mut Load,
    user: &str,
    old: &RedisServer,
) {
    // It can acknowledge nothing any more.
    load.resume_writers();
    load.suffers().await;
    let mut probe = server.client();
    let took = eventually("a login", async || {
        let login = serde_json::json!({"user": user});
        let response = probe.post("/login", &login).await;
        let done = response.status() == 200;
        if done {
            let token: serde_json::Value = response.json().await.expect("JSON");
            probe.token = token["token"].as_str().map(str::to_owned);
        }
        done
    })
    .await;
    println!("a login at the new primary after {took:?}");
    assert_eq!(probe.status("/me").await, 200);
    cluster.new_primary(&sessions_key(user), old).await;
    load.recovers("failed over").await;
}
