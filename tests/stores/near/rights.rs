//! Servers that do not announce changes.

use tower_bearer_session::{RedisStore, SessionStore};

use super::{lasting, warm};
use crate::stores::{Server, live, log_in, on_every_server, patient, token_id};

on_every_server!(two_rights_more_are_needed_and_enough);

/// Without one of them every check asks the server, and the health tells why.
async fn two_rights_more_are_needed_and_enough(backend: &impl Server) {
    let server = backend.server();
    let store = async |rights: &[&str]| {
        let mut command = vec!["ACL", "SETUSER", "sessions", "reset", "on", ">password"];
        command.extend([
            "~tbs:*",
            "resetchannels",
            "-@all",
            "+get",
            "+hget",
            "+time",
            "+pttl",
        ]);
        command.extend([
            "+eval",
            "+evalsha",
            "+hset",
            "+hlen",
            "+pexpireat",
            "+hrandfield",
        ]);
        command.extend(rights);
        server.cmd(&command).await;
        let url = format!("redis://sessions:password@127.0.0.1:{}", server.port());
        let builder = patient(RedisStore::builder(url)).near_cache(lasting());
        builder.connect().await.unwrap()
    };
    log_in(&backend.store().await, "al", &token_id(1)).await;
    let both = ["+client|tracking", "+client|trackinginfo"];
    let store_with_both = store(&both).await;
    warm(&store_with_both, "al", &token_id(1)).await;
    for one in both {
        let store = store(&[one]).await;
        for _ in 0..50 {
            live(&store, "al", &token_id(1)).await;
            assert!(store.check_now("al", &token_id(1)).is_none());
        }
        let health = store.health();
        let (_, error) = health.last_error().expect("a reason");
        let text = format!("{error:?}");
        assert!(text.contains("permission"), "{text}");
    }
}
