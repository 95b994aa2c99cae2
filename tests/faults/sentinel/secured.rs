//! Passwords and TLS.

use tower_bearer_session::{RedisStore, RedisStoreBuilder};

use super::{LONG_TIMEOUT, Load, SentinelOptions, SentinelSet, fails_over, quiesce, serve};
use crate::harness::Pki;

/// Nodes and sentinels have passwords, and speak TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_secured() {
    let pki = Pki::new();
    let set = secured(&pki, Some("for-sentinels")).await;
    let builder = RedisStore::builder(set.url())
        .password("for-nodes")
        .sentinel_password("for-sentinels");
    survives_a_kill(&set, builder.tls_roots(pki.ca())).await;
}

/// The same with a URL that has both passwords, and a user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_secured_by_url() {
    let pki = Pki::new();
    let set = secured(&pki, Some("for-sentinels")).await;
    let url = set.url().replace("://", "://default:for-nodes@");
    let url = format!("{url}&sentinelUsername=default&sentinelPassword=for-sentinels");
    survives_a_kill(&set, RedisStore::builder(url).tls_roots(pki.ca())).await;
}

/// The nodes speak TLS, but not the sentinels, as far as the store can see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sentinels_are_plain() {
    let pki = Pki::new();
    let set = secured(&pki, None).await;
    let mut url = set.url().replace("://", "://:for-nodes@");
    for sentinel in set.sentinels() {
        let info: String =
            redis::from_redis_value(sentinel.cmd(&["INFO", "server"]).await).unwrap();
        let plain = info.lines().find_map(|line| line.strip_prefix("tcp_port:"));
        url = url.replace(&sentinel.port().to_string(), plain.expect("a port"));
    }
    assert_ne!(url, set.url());
    let by_url = RedisStore::builder(format!("{url}&sentinelTls=false")).tls_roots(pki.ca());
    by_url
        .connect_timeout(LONG_TIMEOUT / 3)
        .connect()
        .await
        .unwrap();
    let by_builder = RedisStore::builder(url).tls_roots(pki.ca());
    survives_a_kill(&set, by_builder.sentinel_tls(false)).await;
}

async fn secured(pki: &Pki, sentinel_password: Option<&str>) -> SentinelSet {
    SentinelSet::start_with(SentinelOptions {
        node_password: Some("for-nodes"),
        sentinel_password,
        tls: Some(pki),
        ..SentinelOptions::default()
    })
    .await
}

async fn survives_a_kill(set: &SentinelSet, builder: RedisStoreBuilder) {
    // Handshakes take their time on a busy machine.
    let store = builder.connect_timeout(LONG_TIMEOUT / 3).connect().await;
    let server = serve(store.unwrap()).await;
    let mut load = Load::start(&server).await;
    let old = set.master().await;
    quiesce(&mut load, old).await;
    old.kill();
    fails_over(set, old, &mut load, "killed").await;
    load.finish().await;
}
