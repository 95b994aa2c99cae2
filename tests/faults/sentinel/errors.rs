//! What `connect` says, and that it says it soon.

use std::time::Instant;

use tokio::time::timeout;
use tower_bearer_session::{Error, RedisStore};

use super::{
    LONG_TIMEOUT, RedisServer, SentinelOptions, SentinelSet, everything, is_live, is_unavailable,
    manager,
};
use crate::harness::Flavor;

#[tokio::test]
async fn the_name_of_the_service_is_wrong() {
    let set = SentinelSet::start().await;
    let error = refused(&set.url().replace("mymaster", "theirmaster")).await;
    tells(&error, &["the sentinels know no master", "theirmaster"]);
}

#[tokio::test]
async fn all_sentinels_are_down() {
    let set = SentinelSet::start().await;
    set.sentinels().iter().for_each(RedisServer::kill);
    let error = refused(&set.url()).await;
    tells(&error, &["no sentinel", "refused"]);
    let ports = set.sentinels().iter().map(|it| it.port().to_string());
    for port in ports {
        tells(&error, &[&port]);
    }
}

#[tokio::test]
async fn all_sentinels_hang() {
    let set = SentinelSet::start().await;
    set.sentinels().iter().for_each(RedisServer::freeze);
    tells(&refused(&set.url()).await, &["no sentinel sa"]);
}

#[tokio::test]
async fn the_master_is_down() {
    let set = SentinelSet::start().await;
    let master = set.master().await;
    master.kill();
    let error = refused(&set.url()).await;
    tells(&error, &["refused", &master.port().to_string()]);
}

/// What is at the port of the sentinel is not one.
#[tokio::test]
async fn the_sentinel_is_no_sentinel() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let port = redis.port();
    let url = format!("redis-sentinel://127.0.0.1:{port}?sentinelServiceName=mymaster");
    let error = refused(&url).await;
    tells(
        &error,
        &[
            "no sentinel",
            "unknown command",
            "SENTINEL",
            &port.to_string(),
        ],
    );
}

/// What is at the port of the server is a sentinel.
#[tokio::test]
async fn the_server_is_a_sentinel() {
    let set = SentinelSet::start().await;
    let url = set.sentinels()[0].url();
    let start = Instant::now();
    let error = timeout(LONG_TIMEOUT, RedisStore::connect(&url)).await;
    let error = error
        .expect("an end of the attempt")
        .expect_err("no server");
    println!(
        "refused after {:?}: {}",
        start.elapsed(),
        everything(&error)
    );
    assert!(everything(&error).contains("unknown command"), "{error:?}");
}

/// Passwords of nodes and of sentinels are two things; right ones work however they are given, and others are told
/// apart and not told.
#[tokio::test]
async fn passwords_are_wrong() {
    let set = SentinelSet::start_with(SentinelOptions {
        node_password: Some("right-for-nodes"),
        sentinel_password: Some("right-for-sentinels"),
        ..SentinelOptions::default()
    })
    .await;
    let url = |node: &str, sentinel: &str| {
        let url = set.url().replace("://", &format!("://{node}"));
        format!("{url}{sentinel}")
    };
    let right = url(":right-for-nodes@", "&sentinelPassword=right-for-sentinels");
    let in_builder = RedisStore::builder(set.url())
        .password("right-for-nodes")
        .sentinel_password("right-for-sentinels");
    assert_works(&right).await;
    in_builder.connect().await.unwrap();

    let sentinel = set.sentinels()[0].port().to_string();
    let master = set.master().await.port().to_string();
    for (node, sentinels, expected) in [
        // The nodes' is not tried at the sentinels.
        (
            ":right-for-nodes@",
            "",
            ["no sentinel", "NOAUTH", &sentinel],
        ),
        (
            ":right-for-nodes@",
            "&sentinelPassword=wrong-for-sentinels",
            ["no sentinel", "WRONGPASS", &sentinel],
        ),
        (
            ":right-for-nodes@",
            "&sentinelUsername=nobody&sentinelPassword=right-for-sentinels",
            ["no sentinel", "WRONGPASS", &sentinel],
        ),
        (
            "",
            "&sentinelPassword=right-for-sentinels",
            ["unavailable", "NOAUTH", &master],
        ),
        (
            ":wrong-for-nodes@",
            "&sentinelPassword=right-for-sentinels",
            ["unavailable", "WRONGPASS", &master],
        ),
        (
            "nobody:right-for-nodes@",
            "&sentinelPassword=right-for-sentinels",
            ["unavailable", "WRONGPASS", &master],
        ),
    ] {
        tells(&refused(&url(node, sentinels)).await, &expected);
    }
}

async fn assert_works(url: &str) {
    let manager = manager(url).await;
    let token = manager.set_token("al", None).await.unwrap();
    assert!(is_live(&manager, token.expose_secret()).await);
}

/// The error of connecting with default timings, which must come soon.
async fn refused(url: &str) -> Error {
    let start = Instant::now();
    let connecting = timeout(LONG_TIMEOUT, RedisStore::connect(url));
    let connected = connecting.await.expect("an end of the attempt");
    let error = connected.expect_err("no connection");
    println!(
        "refused after {:?}: {}",
        start.elapsed(),
        everything(&error)
    );
    error
}

/// The store is away, for these reasons; and no password is among them.
fn tells(error: &Error, expected: &[&str]) {
    assert!(is_unavailable(error), "{error:?}");
    let text = everything(error);
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    for secret in ["right-for", "wrong-for"] {
        assert!(!text.contains(secret), "{text}");
    }
}
