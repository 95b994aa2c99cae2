use std::sync::atomic::Ordering;

use super::{
    super::patient_store, Manager, counting_manager, everything_works, sessions_key, user_key,
};
use crate::{
    harness::{Cluster, Flavor, RedisServer},
    stores::HOUR,
};

/// While a slot is on the move, and with it one of the two keys that a check reads, nothing is missing: not the
/// session, and not the cached user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_finds_both_halves_of_a_user() {
    both_halves_are_found(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_finds_both_halves_of_a_user() {
    both_halves_are_found(Flavor::Valkey).await;
}

async fn both_halves_are_found(flavor: Flavor) {
    let cluster = Cluster::start(flavor).await;
    let (manager, loads) = counting_manager(patient_store(&cluster.url()).await);
    let token = manager.set_token("al", None).await.unwrap();
    manager.add_user("al", HOUR).await.unwrap();
    let (sessions, user) = (sessions_key("al"), user_key("al"));
    let is_whole = async |state: &str| {
        // Clients that know the old map, and one that knows the newest.
        let (fresh, fresh_loads) = counting_manager(patient_store(&cluster.url()).await);
        for (manager, loads) in [(&manager, &loads), (&fresh, &fresh_loads)] {
            let before = loads.load(Ordering::Relaxed);
            let found = checked(manager, token.expose_secret()).await;
            assert_eq!(found.as_deref(), Some("al"), "{state}");
            assert_eq!(loads.load(Ordering::Relaxed), before, "{state}");
            assert_eq!(
                manager.list_user_tokens("al").await.unwrap().len(),
                1,
                "{state}"
            );
        }
    };
    for moved in [[&sessions, &user], [&user, &sessions]] {
        let from = cluster.primary_of(&sessions).await;
        let to = another_primary(&cluster, from);
        let slot = cluster.slot_of(&sessions).await;
        is_whole("before").await;
        let migration = cluster.begin_migration(slot, to).await;
        is_whole("nothing moved yet").await;
        for key in moved {
            move_key(from, to, key).await;
            is_whole(&format!("{key} has moved")).await;
        }
        migration.finish().await;
        is_whole("after").await;
    }
    assert!(manager.delete_token(token.expose_secret()).await.unwrap());
}

/// Everything works for a user whose slot is on the move, wherever the keys are that there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_in_either_half() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let (manager, _) = counting_manager(patient_store(&cluster.url()).await);
    let (sessions, user) = (sessions_key("al"), user_key("al"));
    let slot = cluster.slot_of(&sessions).await;
    for moved in [&[][..], &[&sessions], &[&user], &[&sessions, &user]] {
        let from = cluster.primary_of(&sessions).await;
        let to = another_primary(&cluster, from);
        let old = manager.set_token("al", None).await.unwrap();
        manager.add_user("al", HOUR).await.unwrap();
        let migration = cluster.begin_migration(slot, to).await;
        for key in moved {
            move_key(from, to, key).await;
        }
        // What there was is seen, and can be changed and ended.
        let token = old.expose_secret();
        assert!(manager.refresh_token(token, 2 * HOUR).await.unwrap());
        assert_eq!(checked(&manager, token).await.as_deref(), Some("al"));
        let new = manager.set_token("al", None).await.unwrap();
        assert_eq!(manager.list_user_tokens("al").await.unwrap().len(), 2);
        let others = manager.delete_other_user_tokens("al", new.id());
        assert_eq!(others.await.unwrap(), 1);
        assert_eq!(checked(&manager, token).await, None);
        manager.delete_user("al").await.unwrap();
        assert_eq!(
            checked(&manager, new.expose_secret()).await.as_deref(),
            Some("al")
        );
        assert_eq!(manager.delete_user_tokens("al").await.unwrap(), 1);
        // Now some of the keys are gone, and new ones are made.
        everything_works(&manager, "al").await;
        let kept = manager.set_token("al", None).await.unwrap();
        migration.finish().await;
        assert_eq!(
            checked(&manager, kept.expose_secret()).await.as_deref(),
            Some("al")
        );
        assert_eq!(manager.delete_user_tokens("al").await.unwrap(), 1);
        everything_works(&manager, "al").await;
    }
}

/// The detail of a token's user, if the token is live.
async fn checked(manager: &Manager, token: &str) -> Option<String> {
    let user = manager.check_token_or_update_user(token, None).await;
    user.unwrap()
        .map(|user| user.detail().expect("a detail").clone())
}

pub(super) fn another_primary<'a>(cluster: &'a Cluster, than: &RedisServer) -> &'a RedisServer {
    let mut primaries = cluster.nodes()[..3].iter();
    let another = primaries.find(|node| node.port() != than.port());
    another.expect("three primaries")
}

/// Moves one key of a slot that is on the move.
async fn move_key(from: &RedisServer, to: &RedisServer, key: &str) {
    let port = to.port().to_string();
    let to = ["MIGRATE", "127.0.0.1", &port, key, "0", "5000"];
    let command = [&to[..], &["AUTH2", "harness", "harness"]].concat();
    let answer: String = super::ask(from, &command).await;
    assert_eq!(answer, "OK", "{key}");
}
