use std::time::{Duration, Instant};

use tower_bearer_session::RedisStore;

use super::{
    super::{eventually, is_unavailable},
    manager, replicated, sessions_key,
};
use crate::harness::{Cluster, Flavor, RedisServer};

/// A token that is logged out at the new primary while the old one hangs is never accepted again when that goes on, as
/// if nothing had happened; not even by a client that was idle all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thawed_redis_primary_deceives_nobody() {
    nobody_is_deceived(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thawed_valkey_primary_deceives_nobody() {
    nobody_is_deceived(Flavor::Valkey).await;
}

async fn nobody_is_deceived(flavor: Flavor) {
    let cluster = Cluster::start(flavor).await;
    let (busy, idle) = (store(&cluster).await, store(&cluster).await);
    let (at_busy, at_idle) = (manager(busy), manager(idle.clone()));
    for round in 0..3 {
        let old = cluster.primary_of(&sessions_key("al")).await;
        let token = at_busy.set_token("al", None).await.unwrap();
        let token = token.expose_secret();
        // It has a connection to the old primary.
        assert!(at_idle.check_token(token).await.unwrap().is_some());
        assert_eq!(at_idle.list_user_tokens("al").await.unwrap().len(), 1);
        replicated(old, "al").await;

        old.freeze();
        let took = eventually("a logout", async || {
            match at_busy.delete_token(token).await {
                Ok(done) => done,
                Err(error) => {
                    assert!(error.is_fault(), "{error:?}");
                    false
                }
            }
        })
        .await;
        println!("logged out at the new primary after {took:?}");
        let new = cluster.new_primary(&sessions_key("al"), old).await;
        let took = eventually("the poll", async || {
            is_primary(&idle, new) && !is_primary(&idle, old)
        })
        .await;
        println!("the idle client knows {took:?} after all nodes");

        old.thaw();
        let (start, mut checks) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(3) {
            for manager in [&at_busy, &at_idle] {
                for accepted in [
                    manager.check_token(token).await.map(|user| user.is_some()),
                    manager.refresh_token(token, None).await,
                    manager
                        .list_user_tokens("al")
                        .await
                        .map(|list| !list.is_empty()),
                ] {
                    match accepted {
                        Ok(accepted) => assert!(!accepted, "round {round}"),
                        Err(error) => assert!(is_unavailable(&error), "{error:?}"),
                    }
                    checks += 1;
                }
            }
        }
        println!("{checks} checks");
        cluster.wait_until_whole().await;
    }
}

async fn store(cluster: &Cluster) -> RedisStore {
    RedisStore::connect(cluster.url()).await.unwrap()
}

/// Whether this is one of the primaries, as far as a store knows.
fn is_primary(store: &RedisStore, node: &RedisServer) -> bool {
    let address = format!("127.0.0.1:{}", node.port());
    let health = store.health();
    health
        .primaries()
        .iter()
        .any(|primary| primary.address() == address)
}
