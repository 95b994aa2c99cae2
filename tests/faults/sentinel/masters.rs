use std::time::Instant;

use serde_json::Value;

use super::{
    FOLLOWED, Load, RedisServer, SentinelSet, assert_unused, calm_down, eventually, fails_over,
    quiesce, replace, service, while_master,
};

/// The master is killed; and when it comes back, empty and a master by its own account, nobody asks it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_is_killed_and_comes_back() {
    let set = SentinelSet::start().await;
    let server = service(&set.url()).await;
    let mut load = Load::start(&server).await;
    let old = set.master().await;
    quiesce(&mut load, old).await;

    old.kill();
    let new = fails_over(&set, old, &mut load, "killed").await;

    let before = load.unavailable();
    old.restart().await;
    let back = Instant::now();
    let mut rounds = 0;
    while_master(old, async || {
        rounds += 1;
        load.runs().await;
    })
    .await;
    assert!(rounds > 0);
    println!("it called itself master for {:?}", back.elapsed());
    set.wait_until_whole().await;
    load.runs().await;
    assert_unused(old).await;
    println!("meanwhile {} × 503", load.unavailable() - before);
    assert_eq!(set.master().await.port(), new.port());
    load.finish().await;
}

/// The master hangs, is replaced, and goes on where it was: nobody listens to it any more, and what had been sent to
/// it does no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_is_frozen_and_thawed() {
    let set = SentinelSet::start().await;
    let server = service(&set.url()).await;
    let (leaving, staying) = (
        server.login("al", "phone").await,
        server.login("al", "tv").await,
    );
    let mut load = Load::start(&server).await;
    let old = set.master().await;
    quiesce(&mut load, old).await;

    old.freeze();
    // What is written now goes to the frozen one as well.
    fails_over(&set, old, &mut load, "frozen").await;
    assert_eq!(leaving.post("/logout", &Value::Null).await.status(), 200);

    old.thaw();
    let thawed = Instant::now();
    let (mut checks, mut unavailable) = (0, 0);
    while_master(old, async || {
        checks += 1;
        match (leaving.status("/me").await, staying.status("/me").await) {
            (401, 200) => {}
            (401 | 503, 200 | 503) => unavailable += 1,
            other => panic!("{other:?} for a revoked and a live token"),
        }
    })
    .await;
    let took = thawed.elapsed();
    println!("it called itself master for {took:?}: {checks} checks, {unavailable} × 503");
    set.wait_until_whole().await;
    load.runs().await;
    assert_eq!(leaving.status("/me").await, 401);
    assert_eq!(staying.status("/me").await, 200);
    load.finish().await;
}

/// The master is replaced on purpose, twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_gives_way() {
    let set = SentinelSet::start().await;
    calm_down(&set).await;
    let server = service(&set.url()).await;
    let mut load = Load::start(&server).await;
    for sentinel in &set.sentinels()[1..] {
        let old = set.master().await;
        quiesce(&mut load, old).await;
        let (planned, before) = (Instant::now(), load.unavailable());
        let new = replace(&set, old, sentinel).await;
        println!("replaced after {:?}", planned.elapsed());
        used(new).await;
        println!("used after {:?}", planned.elapsed());
        let took = load.recovers("planned").await;
        assert!(took < FOLLOWED, "{took:?}");
        println!("meanwhile {} × 503", load.unavailable() - before);
        load.resume_writers();
        load.runs().await;
        set.wait_until_whole().await;
    }
    load.finish().await;
}

/// Waits until checks come to this server.
async fn used(server: &RedisServer) {
    let checks = async || {
        server
            .command_calls()
            .await
            .get("hget")
            .copied()
            .unwrap_or(0)
    };
    let before = checks().await;
    eventually("checks at the new master", async || checks().await > before).await;
}
