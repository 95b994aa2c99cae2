use std::time::{Duration, Instant};

use tokio::time::sleep;
use tower_bearer_session::RedisStore;

use super::{
    Load, POLL, RedisServer, SentinelSet, address, assert_unused, calm_down, fails_over,
    fresh_store, is_live, manager, quiesce, serve, service,
};

/// Without sentinels the master goes on; only who loses the connection to it has none, until one is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sentinels_are_away() {
    let set = SentinelSet::start().await;
    calm_down(&set).await;
    // A slow machine is no outage.
    let store = RedisStore::builder(set.url()).deadline(Duration::from_secs(5));
    let store = store.connect().await.unwrap();
    let server = serve(store.clone()).await;
    let mut load = Load::start(&server).await;
    let master = set.master().await;
    set.sentinels().iter().for_each(RedisServer::kill);
    sleep(2 * POLL).await;
    load.runs().await;
    assert_eq!(load.unavailable(), 0);
    assert!(store.is_connected());

    master.cmd(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    load.suffers().await;
    assert!(!store.is_connected());
    for sentinel in set.sentinels() {
        sentinel.restart().await;
    }
    load.recovers("sentinels back").await;
    assert!(store.is_connected());
    load.finish().await;
}

/// One of them is enough to find the master again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sentinels_hang_and_one_goes_on() {
    let set = SentinelSet::start().await;
    calm_down(&set).await;
    let server = service(&set.url()).await;
    let mut load = Load::start(&server).await;
    let master = set.master().await;
    set.sentinels().iter().for_each(RedisServer::freeze);
    sleep(2 * POLL).await;
    load.runs().await;
    master.cmd(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    load.suffers().await;
    set.sentinels()[1].thaw();
    load.recovers("a sentinel back").await;
    load.finish().await;
}

/// A store needs a majority of the sentinels to start with, not all.
#[tokio::test]
async fn one_sentinel_is_away_from_the_start() {
    let set = SentinelSet::start().await;
    calm_down(&set).await;
    for (number, sentinel) in set.sentinels().iter().enumerate() {
        for hangs in [true, false] {
            if hangs {
                sentinel.freeze();
            } else {
                sentinel.kill();
            }
            let start = Instant::now();
            let manager = manager(&set.url()).await;
            println!(
                "number {number}, hangs: {hangs}: connected after {:?}",
                start.elapsed()
            );
            let token = manager.set_token("al", None).await.unwrap();
            assert!(is_live(&manager, token.expose_secret()).await);
            if hangs {
                sentinel.thaw();
            } else {
                sentinel.restart().await;
            }
        }
    }
}

/// The machine of a sentinel and of the master dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_dies_with_the_master() {
    let set = SentinelSet::start().await;
    let server = service(&set.url()).await;
    let mut load = Load::start(&server).await;
    let old = set.master().await;
    quiesce(&mut load, old).await;
    set.sentinels()[0].kill();
    old.kill();
    fails_over(&set, old, &mut load, "killed").await;
    load.finish().await;
}

/// A sentinel that missed the failover leads nobody back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_lags_behind() {
    let set = SentinelSet::start().await;
    let store = RedisStore::connect(set.url()).await.unwrap();
    let server = serve(store.clone()).await;
    let mut load = Load::start(&server).await;
    let old = set.master().await;
    quiesce(&mut load, old).await;
    let lagging = &set.sentinels()[0];
    lagging.freeze();
    old.kill();
    fails_over(&set, old, &mut load, "killed").await;

    old.restart().await;
    lagging.thaw();
    let thawed = Instant::now();
    let mut connected = 0;
    while thawed.elapsed() < Duration::from_secs(3) {
        let fresh = fresh_store(&set.url()).await;
        for store in [&store, &fresh] {
            assert_ne!(store.health().primaries()[0].address(), address(old));
        }
        connected += 1;
    }
    println!("{connected} stores connected");
    load.runs().await;
    assert_unused(old).await;
    load.finish().await;
}

/// One that was told of the old master, and does not listen to the others, leads nobody back either; not even
/// when there is only one other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_goes_astray() {
    let set = SentinelSet::start().await;
    let server = service(&set.url()).await;
    let mut load = Load::start(&server).await;
    let old = set.master().await;
    quiesce(&mut load, old).await;
    old.freeze();
    fails_over(&set, old, &mut load, "frozen").await;

    let [astray, _, third] = set.sentinels() else {
        panic!("no three sentinels");
    };
    let port = old.port().to_string();
    for command in [
        &["ACL", "SETUSER", "default", "-publish"][..],
        &["CLIENT", "KILL", "USER", "default"],
        &["SENTINEL", "REMOVE", "mymaster"],
        &["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &port, "2"],
    ] {
        astray.cmd(command).await;
    }
    for others in [2, 1] {
        for _ in 0..20 {
            let fresh = fresh_store(&set.url()).await;
            assert_ne!(fresh.health().primaries()[0].address(), address(old));
        }
        sleep(POLL).await;
        load.recovers(&format!("one astray, {others} not")).await;
        if others == 2 {
            third.kill();
        }
    }
    let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"];
    let named: (String, u16) = redis::from_redis_value(astray.cmd(&asked).await).unwrap();
    assert_eq!(named.1, old.port());
    old.thaw();
    sleep(POLL).await;
    load.runs().await;
    load.finish().await;
}
