use tokio::task::JoinSet;
use tower_bearer_session::{RedisStore, SessionStore};

use super::{ask, everything};
use crate::stores::{HOUR, Server, is_live, log_in, on_every_server, patient, token_id};

on_every_server!(
    scripts_may_be_forgotten_between_operations,
    scripts_may_be_forgotten_during_operations,
    a_restarted_server_knows_no_scripts,
    an_acl_for_the_keys_of_users_does_not_slow_a_logout_of_all_but_one,
);

/// A server forgets its scripts at a restart, a failover or by command: nobody notices.
async fn scripts_may_be_forgotten_between_operations(backend: &impl Server) {
    let store = backend.store().await;
    for round in 0..5 {
        backend.server().cmd(&["SCRIPT", "FLUSH"]).await;
        everything(&store, &format!("user {round}")).await.unwrap();
    }
}

/// The same at any moment, with many operations under way.
async fn scripts_may_be_forgotten_during_operations(backend: &impl Server) {
    let store = backend.store().await;
    let mut users = JoinSet::new();
    for number in 0..8 {
        let store = store.clone();
        users.spawn(async move {
            for round in 0..20 {
                let user = format!("user {number} {round}");
                everything(&store, &user).await.unwrap();
            }
        });
    }
    let users = tokio::spawn(users.join_all());
    let (mut flushes, mut client) = (0, backend.server().client().await);
    while !users.is_finished() {
        let flush = ::redis::cmd("SCRIPT").arg("FLUSH").take();
        flush.exec_async(&mut client).await.unwrap();
        flushes += 1;
    }
    users.await.unwrap();
    let evals: u64 = calls(backend, "eval").await;
    println!("{flushes} flushes, {evals} scripts sent again");
    assert!(evals > 4);
}

/// A script is sent once, and from then on by its name.
async fn a_restarted_server_knows_no_scripts(backend: &impl Server) {
    let store = backend.store().await;
    for round in 0..3 {
        everything(&store, &format!("user {round}")).await.unwrap();
    }
    // create, refresh, delete, delete_all and put_user
    assert_eq!(calls(backend, "eval").await, 5);
    backend.server().restart().await;
    let mut patience = 1000;
    while let Err(error) = everything(&store, "user").await {
        assert!(patience > 0, "{error:?}");
        patience -= 1;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let _: String = ask(backend.server(), &["FLUSHALL"]).await;
    }
    assert!(calls(backend, "eval").await <= 10);
}

/// An account that may use the keys of users and no others ends all sessions but one without reading them.
async fn an_acl_for_the_keys_of_users_does_not_slow_a_logout_of_all_but_one(backend: &impl Server) {
    let keys = ["~tbs:tokens:{al}", "~tbs:users:*"];
    let user = ["ACL", "SETUSER", "exact", "on", ">pw", "+@all"];
    let server = backend.server();
    server.cmd(&[&user[..], &keys].concat()).await;
    let url = format!("redis://exact:pw@127.0.0.1:{}", server.port());
    let store = patient(RedisStore::builder(url)).connect().await.unwrap();
    let ids = [1, 2, 3].map(token_id);
    for id in &ids {
        log_in(&store, "al", id).await;
    }
    assert!(store.refresh("al", &ids[0], HOUR).await.unwrap());
    assert_eq!(store.delete_all("al", Some(&ids[0])).await.unwrap(), 2);
    assert!(is_live(&store, "al", &ids[0]).await);
    assert_eq!(calls(backend, "hgetall").await, 0, "all sessions were read");
}

async fn calls(backend: &impl Server, command: &str) -> u64 {
    let calls = backend.server().command_calls().await;
    calls.get(command).copied().unwrap_or_default()
}
