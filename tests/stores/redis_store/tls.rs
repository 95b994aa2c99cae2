use std::time::Instant;

use tower_bearer_session::{Error, ErrorKind, RedisStore, RedisStoreBuilder, SessionStore};

use super::everything;
use crate::{
    harness::{Cluster, Flavor, Pki, RedisServer},
    stores::{HOUR, is_live, log_in, patient, token_id},
};

/// Users of the three primaries that a cluster has to begin with.
const USERS: [&str; 3] = ["al", "ed", "bo"];

/// The authority that is given is trusted, whether the server is called by name or by address, and whatever else
/// there is in the URL.
#[tokio::test]
async fn the_given_authority_is_trusted() {
    let pki = Pki::new();
    let redis = RedisServer::start_tls(&pki, &["--requirepass", "p@ss word"]).await;
    let (port, encoded) = (redis.port(), "p%40ss%20word");
    let address = format!("localhost:{port}");
    let several = Pki::new().ca().to_owned() + pki.ca();
    for (builder, roots) in [
        (
            RedisStore::builder(format!("rediss://:{encoded}@{address}")),
            pki.ca(),
        ),
        (
            RedisStore::builder(format!("rediss://default:{encoded}@127.0.0.1:{port}/3")),
            pki.ca(),
        ),
        (
            RedisStore::builder(format!("valkeys://:{encoded}@{address}")),
            &several,
        ),
        (
            RedisStoreBuilder::standalone(&address)
                .tls(true)
                .password("p@ss word"),
            pki.ca(),
        ),
    ] {
        let store = patient(builder.tls_roots(roots)).connect().await.unwrap();
        redis.cmd(&["FLUSHALL"]).await;
        everything(&store, "al").await.unwrap();
        let shown = format!("{store:?}");
        assert!(!shown.contains("ss word") && !shown.contains(encoded));
    }
    let wrong = format!("rediss://:hunter2@{address}");
    let error = refused(RedisStore::builder(wrong).tls_roots(pki.ca())).await;
    assert_says(&error, "WRONGPASS");
}

/// No other server is trusted: not of another authority, not by those who trust Mozilla's authorities, and not with a
/// certificate for another host.
#[tokio::test]
async fn strange_certificates_are_refused() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let redis = RedisServer::start_tls(&pki, &[]).await;
    for builder in [
        RedisStore::builder(redis.url()).tls_roots(stranger.ca()),
        RedisStore::builder(redis.url()),
    ] {
        assert_says(&refused(builder).await, "invalid peer certificate");
    }
    let elsewhere = Pki::for_hosts(&["elsewhere.test", "127.0.0.1"]);
    let redis = RedisServer::start_tls(&elsewhere, &[]).await;
    let by_name = RedisStore::builder(redis.url()).tls_roots(elsewhere.ca());
    assert_says(&refused(by_name).await, "not valid for name");
    let by_address = redis.url().replace("localhost", "127.0.0.1");
    let by_address = RedisStore::builder(by_address).tls_roots(elsewhere.ca());
    let store = patient(by_address).connect().await.unwrap();
    everything(&store, "al").await.unwrap();

    let named = |name| {
        let builder = RedisStore::builder(redis.url()).tls_roots(elsewhere.ca());
        builder.tls_server_name(name)
    };
    let store = patient(named("elsewhere.test")).connect().await.unwrap();
    everything(&store, "bo").await.unwrap();
    assert_says(&refused(named("nowhere.test")).await, "not valid for name");
    let error = named("not a name").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
}

/// Who speaks TLS to a server that does not, or does not to one that does, gets an error.
#[tokio::test]
async fn both_or_none_speak_tls() {
    let pki = Pki::new();
    let with = RedisServer::start_tls(&pki, &[]).await;
    let without = RedisServer::start(Flavor::Redis).await;
    // Servers take what they hear for the beginning of a command, and say nothing: that takes the whole time
    // to connect.
    let url = without.url().replace("redis", "rediss");
    let error = RedisStore::builder(url).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_says(&error, &without.port().to_string());

    let url = with.url().replace("rediss", "redis");
    let error = refused(RedisStore::builder(url)).await;
    assert_says(&error, &with.port().to_string());
}

/// A server that asks for a certificate gets the one that is given, and nobody gets in with none or a wrong one.
#[tokio::test]
async fn a_client_shows_its_certificate() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let redis = RedisServer::start_tls(&pki, &["--tls-auth-clients", "yes"]).await;
    let builder = || RedisStore::builder(redis.url()).tls_roots(pki.ca());
    let show =
        |of: &Pki| builder().tls_client_certificate(&*of.client().certificate, &*of.client().key);
    let store = patient(show(&pki)).connect().await.unwrap();
    everything(&store, "al").await.unwrap();
    for (refused_as, builder) in [("none", builder()), ("a stranger's", show(&stranger))] {
        let error = refused(builder).await;
        println!("{refused_as}: {error:?}");
        assert_says(&error, "alert");
        assert_keeps_secret(&format!("{error:?} {error}"), &stranger);
    }
    for shown in [format!("{:?}", show(&pki)), format!("{store:?}")] {
        assert_keeps_secret(&shown, &pki);
    }
    // The certificate of one and the key of another.
    let mixed =
        builder().tls_client_certificate(&*pki.client().certificate, &*stranger.client().key);
    let error = mixed.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert_keeps_secret(&format!("{error:?}"), &stranger);
}

/// A connection that is lost is replaced by one that is as safe.
#[tokio::test]
async fn lost_connections_come_back_with_tls() {
    let pki = Pki::new();
    let redis = RedisServer::start_tls(&pki, &["--tls-auth-clients", "yes"]).await;
    let (certificate, key) = (&*pki.client().certificate, &*pki.client().key);
    let builder = RedisStore::builder(redis.url())
        .tls_roots(pki.ca())
        .tls_client_certificate(certificate, key);
    let store = patient(builder).connect().await.unwrap();
    for _ in 0..10 {
        redis.cmd(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        everything(&store, "al").await.unwrap();
        redis.cmd(&["FLUSHALL"]).await;
    }
    assert!(store.health().reconnects() > 0);
}

/// All nodes of a cluster speak TLS, to each other and to clients, of whom they want certificates: also after a
/// failover, and while slots move.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_speaks_tls() {
    let pki = Pki::new();
    let ask_clients = ["--tls-auth-clients", "yes"];
    let cluster = Cluster::start_with(Flavor::Redis, Some(&pki), &ask_clients).await;
    let builder = || RedisStore::builder(cluster.url()).tls_roots(pki.ca());
    for (builder, reason) in [
        (builder(), "alert"),
        (
            RedisStore::builder(cluster.url()),
            "invalid peer certificate",
        ),
    ] {
        assert_says(&refused(builder).await, reason);
    }
    let (certificate, key) = (&*pki.client().certificate, &*pki.client().key);
    let builder = builder().tls_client_certificate(certificate, key);
    let store = builder.connect().await.unwrap();
    for user in USERS {
        everything(&store, user).await.unwrap();
    }

    let kept = token_id(7);
    let sessions = "tbs:tokens:{al}";
    log_in(&store, "al", &kept).await;
    let old = cluster.primary_of(sessions).await;
    let mut commands = ::redis::pipe();
    commands
        .set("fence:{al}", "")
        .cmd("WAIT")
        .arg(1)
        .arg(10_000);
    commands.exec_async(&mut old.client().await).await.unwrap();
    old.kill();
    let new = cluster.new_primary(sessions, old).await;
    let start = Instant::now();
    while store.refresh("al", &kept, HOUR).await.is_err() {
        assert!(start.elapsed().as_secs() < 30, "no recovery");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    println!("refreshed {:?} after all nodes knew", start.elapsed());
    assert!(is_live(&store, "al", &kept).await);
    assert_eq!(store.delete_all("al", None).await.unwrap(), 1);
    for user in USERS {
        everything(&store, user).await.unwrap();
    }
    old.restart().await;
    cluster.wait_until_whole().await;

    log_in(&store, "al", &kept).await;
    let slot = cluster.slot_of(sessions).await;
    for to in [&cluster.nodes()[1], &cluster.nodes()[2], new] {
        let migration = cluster.begin_migration(slot, to).await;
        assert!(is_live(&store, "al", &kept).await);
        migration.move_keys(1).await;
        assert!(is_live(&store, "al", &kept).await);
        migration.finish().await;
        assert!(is_live(&store, "al", &kept).await);
    }
}

/// The error of connecting, which is there long before the time to connect is over.
async fn refused(builder: RedisStoreBuilder) -> Error {
    let start = Instant::now();
    let error = patient(builder).connect().await.expect_err("no connection");
    let took = start.elapsed();
    println!("refused after {took:?}: {error:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(took.as_secs() < 10, "{took:?}");
    error
}

fn assert_says(error: &Error, part: &str) {
    let text = format!("{error:?}");
    assert!(text.contains(part), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

/// There is nothing of the private key in this text.
fn assert_keeps_secret(text: &str, of: &Pki) {
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    let lines = of.client().key.lines();
    for line in lines.filter(|line| !line.starts_with('-')) {
        assert!(!text.contains(&line[..line.len().min(16)]), "{text}");
    }
}
