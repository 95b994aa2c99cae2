use tower_bearer_session::{Error, RedisStore};

use super::everything;
use crate::stores::{Server, on_every_server, patient};

on_every_server!(
    the_smallest_acl_is_enough_and_the_smallest,
    a_database_needs_select
);

/// The rights that a store needs, and no others:
///
/// ```text
/// ACL SETUSER sessions on >password ~tbs:* resetchannels -@all +get +set +unlink +time +pttl +pexpireat
///     +hget +hset +hdel +hlen +hgetall +hkeys +hrandfield +hscan +eval +evalsha
/// ```
///
/// A database other than 0 takes `+select`, too. `HELLO`, `AUTH` and `QUIT` are always allowed.
const RIGHTS: [&str; 17] = [
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
    "+hkeys",
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
        assert!(error.is_fault());
    }
}

/// A database other than the first takes one right more.
async fn a_database_needs_select(backend: &impl Server) {
    try_with(backend, &RIGHTS, "/3").await.unwrap_err();
    let rights = [&RIGHTS[..], &["+select"]].concat();
    try_with(backend, &rights, "/3").await.unwrap();
}

/// Does everything as a user with these rights.
async fn try_with(backend: &impl Server, rights: &[&str], db: &str) -> Result<(), Error> {
    let server = backend.server();
    server.cmd(&["FLUSHALL"]).await;
    server.cmd(&["SCRIPT", "FLUSH"]).await;
    let mut command = vec!["ACL", "SETUSER", "sessions", "reset", "on", ">password"];
    command.extend(["resetchannels", "-@all"]);
    command.extend(rights);
    server.cmd(&command).await;
    let url = format!("redis://sessions:password@127.0.0.1:{}{db}", server.port());
    let store = patient(RedisStore::builder(url)).connect().await?;
    everything(&store, "al").await
}
