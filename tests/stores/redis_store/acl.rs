use std::time::Duration;

use tower_bearer_session::{Error, ErrorKind, RedisStore, SessionStore};

use super::everything;
use crate::{
    harness::{Cluster, Flavor, RedisServer, SentinelSet},
    stores::{Server, listed, log_in, on_every_server, patient, token_id},
};

on_every_server!(
    the_smallest_acl_is_enough_and_the_smallest,
    a_database_needs_select,
    a_listing_of_users_needs_two_rights_more
);

/// The rights that a store needs, and no others:
///
/// ```text
/// ACL SETUSER sessions on >password ~tbs:* resetchannels -@all +get +set +unlink +time +pttl +pexpireat
///     +hget +hset +hdel +hlen +hgetall +hrandfield +hscan +eval +evalsha
/// ```
///
/// A database other than 0 takes `+select`, too. `HELLO`, `AUTH` and `QUIT` are always allowed.
const RIGHTS: [&str; 16] = [
    "~tbs:*",
    "+get",
    "+set",
    "+unlink",
    "+time",
    "+pttl",
    "+pexpireat",
    "+hget",
    "+hset",
    "+hdel",
    "+hlen",
    "+hgetall",
    "+hrandfield",
    "+hscan",
    "+eval",
    "+evalsha",
];

/// With all of the rights everything works; without any one of them something does not, and says so.
async fn the_smallest_acl_is_enough_and_the_smallest(backend: &impl Server) {
    try_with(backend, &RIGHTS, "").await.unwrap();
    for missing in RIGHTS {
        let mut rights = RIGHTS.to_vec();
        rights.retain(|right| *right != missing);
        let error = try_with(backend, &rights, "").await.expect_err(missing);
        let text = format!("{error:?}");
        let said = ["NOPERM", "permission", "can't run"];
        assert!(said.iter().any(|words| text.contains(words)), "{text}");
        assert_eq!(error.kind(), ErrorKind::Store, "{text}");
    }
}

/// A database other than the first takes one right more, and has to exist.
async fn a_database_needs_select(backend: &impl Server) {
    try_with(backend, &RIGHTS, "/3").await.unwrap_err();
    let rights = [&RIGHTS[..], &["+select"]].concat();
    try_with(backend, &rights, "/3").await.unwrap();
    let error = try_with(backend, &rights, "/99").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
}

/// Does everything as a user with these rights.
async fn try_with(backend: &impl Server, rights: &[&str], db: &str) -> Result<(), Error> {
    let server = backend.server();
    server.cmd(&["FLUSHALL"]).await;
    server.cmd(&["SCRIPT", "FLUSH"]).await;
    grant(server, rights).await;
    let url = format!("redis://sessions:password@127.0.0.1:{}{db}", server.port());
    let store = patient(RedisStore::builder(url)).connect().await?;
    everything(&store, "al").await
}

/// Listing all users takes two rights more, of which the error names the one that is missing.
async fn a_listing_of_users_needs_two_rights_more(backend: &impl Server) {
    let server = backend.server();
    let listed = async |rights: &[&str]| {
        grant(server, &[&RIGHTS[..], rights].concat()).await;
        let url = format!("redis://sessions:password@127.0.0.1:{}", server.port());
        let store = patient(RedisStore::builder(url)).connect().await?;
        log_in(&store, "al", &token_id(1)).await;
        store.list_users(None).await
    };
    assert_eq!(listed(&["+scan", "+info"]).await.unwrap().users, ["al"]);
    for only in [&[][..], &["+scan"], &["+info"]] {
        let error = listed(only).await.unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("no permissions to run"), "{text}");
    }
}

/// What Sentinel needs at the sentinels, and `confirm_replicas` at the servers; with Sentinel alone the servers need no
/// further right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_needs_a_few_rights_more() {
    let set = SentinelSet::start().await;
    for sentinel in set.sentinels() {
        let rights = [
            "+hello",
            "+sentinel|master",
            "+sentinel|get-master-addr-by-name",
        ];
        let rights = [&rights[..], &["+subscribe", "&+switch-master"]].concat();
        grant(sentinel, &rights).await;
    }
    let url = set.url().replacen("://", "://sessions:password@", 1);
    let url = format!("{url}&sentinelUsername=sessions&sentinelPassword=password");
    let connect = async |rights: &[&str], replicas: Option<u32>| {
        for node in set.nodes() {
            grant(node, &[&RIGHTS[..], rights].concat()).await;
        }
        let mut builder = RedisStore::builder(&url).connect_timeout(Duration::from_secs(5));
        if let Some(replicas) = replicas {
            builder = builder.confirm_replicas(replicas, Duration::from_secs(5));
        }
        builder.deadline(Duration::from_secs(5)).connect().await
    };
    let store = connect(&[], None).await.unwrap();
    everything(&store, "al").await.unwrap();
    let store = connect(&["+info", "+wait"], Some(1)).await.unwrap();
    everything(&store, "al").await.unwrap();
    for only in ["+info", "+wait"] {
        let tried = async { everything(&connect(&[only], Some(1)).await?, "al").await };
        tried.await.unwrap_err();
    }
}

/// What Cluster needs besides, with a slot on the move.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_needs_a_few_rights_more() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let url = cluster.url().replacen("://", "://sessions:password@", 1);
    let connect = async |rights: &[&str]| {
        for node in cluster.nodes() {
            grant(node, &[&RIGHTS[..], rights].concat()).await;
        }
        patient(RedisStore::builder(&url)).connect().await
    };
    let needed = ["+cluster|slots", "+cluster|nodes", "+asking"];
    for missing in &needed[..2] {
        let rights = needed.into_iter().filter(|right| right != missing);
        connect(&Vec::from_iter(rights)).await.unwrap_err();
    }
    let key = "tbs:tokens:{al}";
    let from = cluster.primary_of(key).await.port();
    let to = cluster.nodes()[..3].iter().find(|node| node.port() != from);
    let to = to.expect("another primary");
    let slot = cluster.slot_of(key).await;
    let migration = cluster.begin_migration(slot, to).await;
    let store = connect(&needed).await.unwrap();
    everything(&store, "al").await.unwrap();
    let store = connect(&needed[..2]).await.unwrap();
    everything(&store, "al").await.unwrap_err();
    migration.finish().await;
    let store = connect(&needed).await.unwrap();
    store.delete_all("al", None).await.unwrap();
    everything(&store, "bo").await.unwrap();
    store.list_users(None).await.unwrap_err();
    let store = connect(&[&needed[..], &["+scan", "+info"]].concat())
        .await
        .unwrap();
    store.list_users(None).await.unwrap();
}

/// The script that ends all sessions but one tries a key beside the user's to learn whether the slot is on the move. An
/// account may lack the right to that key, and the session is kept all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_is_kept_while_its_slot_moves_whatever_the_key_pattern() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let rights = ["~tbs:tokens:{al}", "~tbs:users:*"];
    let needed = ["+cluster|slots", "+cluster|nodes", "+asking"];
    for node in cluster.nodes() {
        grant(node, &[&rights[..], &RIGHTS[1..], &needed].concat()).await;
    }
    let url = cluster.url().replacen("://", "://sessions:password@", 1);
    let store = patient(RedisStore::builder(&url)).connect().await.unwrap();
    let key = "tbs:tokens:{al}";
    let from = cluster.primary_of(key).await.port();
    let to = cluster.nodes()[..3].iter().find(|node| node.port() != from);
    let slot = cluster.slot_of(key).await;
    let kept = token_id(1);
    for n in 1..4 {
        log_in(&store, "al", &token_id(n)).await;
    }
    let to = to.expect("another primary");
    let migration = cluster.begin_migration(slot, to).await;
    assert_eq!(store.delete_all("al", Some(&kept)).await.unwrap(), 2);
    assert_eq!(listed(&store, "al").await, [kept]);
    migration.finish().await;
    assert_eq!(listed(&store, "al").await, [kept]);
}

async fn grant(server: &RedisServer, rights: &[&str]) {
    let mut command = vec!["ACL", "SETUSER", "sessions", "reset", "on", ">password"];
    command.extend(["resetchannels", "-@all"]);
    command.extend(rights);
    server.cmd(&command).await;
}
