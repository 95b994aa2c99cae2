use std::time::Duration;

use tower_bearer_session::{ErrorKind, RedisStore};

use super::{super::eventually, Manager, manager, sessions_key};
use crate::{
    harness::{Cluster, Flavor},
    stores::HOUR,
};

/// On different primaries.
const USERS: [&str; 3] = ["al", "ed", "bo"];

/// A logout waits for the replica of its own primary: if that hangs, the caller learns it, and users of other primaries
/// do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_confirm_for_their_own_primary() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let manager = confirming(&cluster, Duration::from_secs(3)).await;
    for user in USERS {
        log_in_and_out(&manager, user).await.unwrap();
    }
    let token = manager.set_token("al", None).await.unwrap();
    let token = token.expose_secret();
    let primary = cluster.primary_of(&sessions_key("al")).await;
    assert_eq!(primary.port(), cluster.nodes()[0].port());
    let replica = &cluster.nodes()[3];
    replica.freeze();
    for outcome in [
        manager.refresh_token(token, HOUR).await,
        manager.delete_token(token).await,
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unconfirmed);
    }
    // It is done nevertheless.
    assert!(manager.check_token(token).await.unwrap().is_none());
    for user in &USERS[1..] {
        log_in_and_out(&manager, user).await.unwrap();
    }
    replica.thaw();
    let took = eventually("confirmation", async || {
        log_in_and_out(&manager, "al").await.is_ok()
    })
    .await;
    println!("confirmed again after {took:?}");
}

/// At the new primary, too, when its former primary has become its replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_confirm_after_a_failover() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let manager = confirming(&cluster, Duration::from_secs(3)).await;
    log_in_and_out(&manager, "al").await.unwrap();
    let old = cluster.primary_of(&sessions_key("al")).await;
    old.kill();
    cluster.new_primary(&sessions_key("al"), old).await;
    let took = eventually("a logout that is not confirmed", async || {
        let outcome = log_in_and_out(&manager, "al").await;
        outcome.is_err_and(|kind| kind == ErrorKind::Unconfirmed)
    })
    .await;
    println!("logged out without a replica after {took:?}");
    old.restart().await;
    let took = eventually("confirmation", async || {
        log_in_and_out(&manager, "al").await.is_ok()
    })
    .await;
    println!("confirmed again after {took:?}");
}

/// While a slot is on the move logouts are confirmed, whether the user's sessions have moved or not, and whether any
/// are left or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_confirm_while_a_slot_moves() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let manager = confirming(&cluster, Duration::from_secs(10)).await;
    let slot = cluster.slot_of(&sessions_key("al")).await;
    let [first, second, _] = [0, 1, 2].map(|n| &cluster.nodes()[n]);
    for (moved, to) in [(0, second), (1, first)] {
        let tokens = [
            manager.set_token("al", None).await.unwrap(),
            manager.set_token("al", None).await.unwrap(),
        ];
        let migration = cluster.begin_migration(slot, to).await;
        migration.move_keys(moved).await;
        for token in tokens {
            assert!(
                manager
                    .refresh_token(token.expose_secret(), HOUR)
                    .await
                    .unwrap()
            );
            assert!(
                manager.delete_token(token.expose_secret()).await.unwrap(),
                "{moved} keys moved"
            );
        }
        log_in_and_out(&manager, "al").await.unwrap();
        migration.finish().await;
        log_in_and_out(&manager, "al").await.unwrap();
    }
}

async fn confirming(cluster: &Cluster, timeout: Duration) -> Manager {
    let store = RedisStore::builder(cluster.url())
        .confirm_replicas(1, timeout)
        .deadline(Duration::from_secs(5));
    manager(store.connect().await.unwrap())
}

async fn log_in_and_out(manager: &Manager, user: &str) -> Result<(), ErrorKind> {
    let token = manager
        .set_token(user, None)
        .await
        .map_err(|error| error.kind())?;
    let done = manager.delete_token(token.expose_secret()).await;
    assert!(done.map_err(|error| error.kind())?);
    Ok(())
}
