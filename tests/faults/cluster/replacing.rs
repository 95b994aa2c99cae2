//! A script that empties the hash of a user's sessions cannot fill it again while the slot is on the move: the node
//! that does not have a key any more may not make it.

use tower_bearer_session::{Token, TokenManager};

use super::{super::patient_store, Manager, halves::another_primary, manager, sessions_key};
use crate::{
    harness::{Cluster, Flavor, RedisServer},
    stores::{SHORT, outlive_short},
};

/// The session that is kept, when all others are logged out, is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_kept_while_its_slot_moves() {
    a_session_is_kept(&Moving::start(Flavor::Redis).await).await;
}

/// The new session of a user who may have only one takes the place of the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_replaced_while_its_slot_moves() {
    a_session_is_replaced(&Moving::start(Flavor::Redis).await).await;
}

/// A new session takes the place of those that have expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_sessions_are_replaced_while_their_slot_moves() {
    expired_sessions_are_replaced(&Moving::start(Flavor::Redis).await).await;
}

/// All of it with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_sessions_are_replaced_while_their_slot_moves() {
    let moving = Moving::start(Flavor::Valkey).await;
    a_session_is_kept(&moving).await;
    a_session_is_replaced(&moving).await;
    expired_sessions_are_replaced(&moving).await;
}

async fn a_session_is_kept(moving: &Moving) {
    let manager = &moving.manager;
    let kept = manager.set_token("al", None).await.unwrap();
    let other = manager.set_token("al", None).await.unwrap();
    moving
        .during(async || {
            let ended = manager.delete_other_user_tokens("al", kept.id()).await;
            println!("{ended:?}");
            assert!(moving.is_live(&kept).await);
            assert!(!moving.is_live(&other).await);
            assert_eq!(ended.unwrap(), 1);
        })
        .await;
    assert!(moving.is_live(&kept).await);
    manager.delete_user_tokens("al").await.unwrap();
}

async fn a_session_is_replaced(moving: &Moving) {
    let old = moving.single.set_token("al", None).await.unwrap();
    moving
        .during(async || {
            let new = moving.single.set_token("al", None).await;
            println!("{new:?}");
            // Either it is done or it is not.
            assert_eq!(moving.is_live(&old).await, new.is_err());
            assert!(moving.is_live(&new.unwrap()).await);
        })
        .await;
    moving.manager.delete_user_tokens("al").await.unwrap();
}

async fn expired_sessions_are_replaced(moving: &Moving) {
    let manager = &moving.manager;
    manager.set_token("al", SHORT).await.unwrap();
    // The hash lives on.
    let other = manager.set_token("al", None).await.unwrap();
    assert!(manager.delete_token(other.expose_secret()).await.unwrap());
    outlive_short().await;
    moving
        .during(async || {
            let new = manager.set_token("al", None).await.unwrap();
            assert!(moving.is_live(&new).await);
        })
        .await;
    manager.delete_user_tokens("al").await.unwrap();
}

/// A cluster in which the slot of `al` moves.
struct Moving {
    cluster: Cluster,
    manager: Manager,
    /// Lets users have one session.
    single: TokenManager,
}

impl Moving {
    async fn start(flavor: Flavor) -> Self {
        let cluster = Cluster::start(flavor).await;
        let store = patient_store(&cluster.url()).await;
        let single = TokenManager::builder(store.clone()).single_mode().build();
        Self {
            cluster,
            manager: manager(store),
            single: single.unwrap(),
        }
    }

    /// Does something while the slot is on the move, before any key is.
    async fn during(&self, work: impl AsyncFnOnce()) {
        let key = sessions_key("al");
        let slot = self.cluster.slot_of(&key).await;
        let from = self.cluster.primary_of(&key).await;
        let to: &RedisServer = another_primary(&self.cluster, from);
        let migration = self.cluster.begin_migration(slot, to).await;
        work().await;
        migration.finish().await;
    }

    async fn is_live(&self, token: &Token) -> bool {
        let user = self.manager.check_token(token.expose_secret()).await;
        user.unwrap().is_some()
    }
}
