use std::net::TcpListener;

use tower_bearer_session::{ErrorKind, RedisStore};

use super::everything;
use crate::{
    harness::{Flavor, RedisServer},
    stores::patient,
};

/// A password with every character that means something in a URL.
const PASSWORD: &str = "p:a@s/s?w#o%r d[é]";
const ENCODED: &str = "p%3Aa%40s%2Fs%3Fw%23o%25r%20d%5B%C3%A9%5D";

/// Passwords and user names may have any characters, percent-encoded in the URL and plain in the builder.
#[tokio::test]
async fn credentials_may_have_any_characters() {
    let redis = RedisServer::start_with(Flavor::Redis, &["--requirepass", PASSWORD]).await;
    let user = "na:m@e/";
    let password = format!(">{PASSWORD}");
    redis
        .cmd(&["ACL", "SETUSER", user, "on", &password, "~*", "+@all"])
        .await;
    let port = redis.port();
    let plain = redis.url();
    for builder in [
        RedisStore::builder(format!("redis://:{ENCODED}@127.0.0.1:{port}")),
        RedisStore::builder(format!("redis://:{ENCODED}@127.0.0.1:{port}/2")),
        RedisStore::builder(format!("redis://default:{ENCODED}@127.0.0.1:{port}")),
        RedisStore::builder(format!("redis://na%3Am%40e%2F:{ENCODED}@127.0.0.1:{port}")),
        RedisStore::builder(&plain).password(PASSWORD),
        RedisStore::builder(&plain)
            .username(user)
            .password(PASSWORD),
        // The builder wins over the URL.
        RedisStore::builder(format!("redis://x:y@127.0.0.1:{port}"))
            .username(user)
            .password(PASSWORD),
    ] {
        let shown = format!("{builder:?}");
        assert!(!shown.contains(PASSWORD) && !shown.contains(ENCODED));
        let store = patient(builder).connect().await.unwrap();
        redis.cmd(&["FLUSHALL"]).await;
        everything(&store, "al").await.unwrap();
        let shown = format!("{store:?} {store:#?}");
        assert!(
            !shown.contains(PASSWORD) && !shown.contains(ENCODED),
            "{shown}"
        );
    }
}

/// Names, addresses and schemes are taken as usual.
#[tokio::test]
async fn hosts_are_found() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let port = redis.port();
    // `localhost` may be ::1 first, where nothing listens.
    for url in [
        format!("redis://127.0.0.1:{port}"),
        format!("redis://localhost:{port}"),
        format!("redis://LOCALHOST:{port}/"),
        format!("valkey://127.0.0.1:{port}"),
    ] {
        let store = patient(RedisStore::builder(url)).connect().await.unwrap();
        redis.cmd(&["FLUSHALL"]).await;
        everything(&store, "al").await.unwrap();
    }
}

/// An IPv6 address is written in brackets. (A machine without IPv6 cannot show it.)
#[tokio::test]
async fn ipv6_addresses_work() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        println!("no IPv6 here: {error}");
        return;
    }
    let redis = RedisServer::start_with(Flavor::Redis, &["--bind", "127.0.0.1", "::1"]).await;
    let url = format!("redis://[::1]:{}/1", redis.port());
    let store = patient(RedisStore::builder(url)).connect().await.unwrap();
    everything(&store, "al").await.unwrap();
}

/// What cannot be is said at once, without a connection, and without what may be a password.
#[tokio::test]
async fn wrong_urls_are_errors_at_once() {
    for url in [
        "",
        "hunter2",
        "127.0.0.1:6379",
        "http://:hunter2@127.0.0.1",
        "redis://:hunter2@",
        "redis://:hunter2@127.0.0.1/three",
        "redis://:hunter2@127.0.0.1/-1",
        "redis://:hunter2@127.0.0.1/99999999999",
        "redis://:hunter2@127.0.0.1:port",
        "redis://:hunter2@127.0.0.1:70000",
        "redis://:hunter2@127.0.0.1?db=3",
        "redis://:hunter2@127.0.0.1#3",
    ] {
        let error = RedisStore::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(!error.is_fault());
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        let error = RedisStore::builder(url).connect_lazy().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    }
}

/// An empty password is no secret: it must not be blotted out of error texts.
#[tokio::test]
async fn an_empty_password_leaves_errors_readable() {
    let redis = RedisServer::start(Flavor::Redis).await;
    redis.kill();
    let store = RedisStore::builder(redis.url()).password("");
    let error = store.connect().await.unwrap_err();
    assert!(format!("{error:?}").contains("refused"), "{error:?}");
}
