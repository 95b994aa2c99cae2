//! The nodes of a cluster die, hang, change places, join and leave, and slots move between them.

mod confirm;
mod connect;
mod endpoints;
mod failover;
mod fake;
mod halves;
mod health;
mod idle;
mod loss;
mod mapped;
mod membership;
mod names;
mod others;
mod redirections;
mod replacing;
mod resharding;
mod scripts;
mod storms;
mod user_ids;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use redis::{FromRedisValue, from_redis_value};
use tower_bearer_session::{OnFull, RedisStore, TokenManager};

use crate::{
    harness::RedisServer,
    stores::{HOUR, tick},
};

/// Their detail is their id.
type Manager = TokenManager<String>;

/// How often users were loaded.
type Loads = Arc<AtomicUsize>;

fn manager(store: RedisStore) -> Manager {
    counting_manager(store).0
}

/// A manager with a session limit, which takes more of the store, and a loader that counts.
fn counting_manager(store: RedisStore) -> (Manager, Loads) {
    let loads = Loads::default();
    let count = Arc::clone(&loads);
    let manager = TokenManager::builder(store)
        .load_user(move |id: String| {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, io::Error>(Some(id)) }
        })
        .session_limit(3, OnFull::EvictOldest)
        .build();
    (manager.unwrap(), loads)
}

/// The key of a user's sessions.
fn sessions_key(user: &str) -> String {
    format!("tbs:tokens:{{{user}}}")
}

/// The key of a cached user.
fn user_key(user: &str) -> String {
    format!("tbs:users:{{{user}}}")
}

/// All that a manager can do, for a user without sessions, who has none afterwards.
async fn everything_works(manager: &Manager, user: &str) {
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(manager.set_token(user, HOUR).await.unwrap());
        // So that there is an oldest.
        tick().await;
    }
    let [evicted, first, second, third] = &tokens[..] else {
        panic!("four logins");
    };
    let is_live = async |token: &str| {
        let found = manager.check_token(token).await.unwrap();
        if let Some(found) = &found {
            assert_eq!(found.id(), user);
        }
        found.is_some()
    };
    assert!(!is_live(evicted.expose_secret()).await, "{user:?}");
    assert_eq!(manager.list_user_tokens(user).await.unwrap().len(), 3);
    let loaded = manager.add_user(user, HOUR).await.unwrap();
    assert_eq!(loaded.unwrap().detail().unwrap(), user);
    let first = first.expose_secret();
    for _ in 0..2 {
        let checked = manager.check_token_or_update_user(first, None).await;
        let checked = checked.unwrap().expect("a live session");
        assert_eq!(checked.detail().unwrap(), user);
        manager.delete_user(user).await.unwrap();
    }
    assert!(manager.refresh_token(first, 2 * HOUR).await.unwrap());
    assert!(manager.delete_token(first).await.unwrap(), "{user:?}");
    assert!(!is_live(first).await, "{user:?}");
    assert!(!manager.refresh_token(first, HOUR).await.unwrap());
    let others = manager.delete_other_user_tokens(user, second.id());
    assert_eq!(others.await.unwrap(), 1, "{user:?}");
    assert!(!is_live(third.expose_secret()).await, "{user:?}");
    assert!(is_live(second.expose_secret()).await, "{user:?}");
    let ended = manager.delete_user_token(user, second.id()).await;
    assert!(ended.unwrap(), "{user:?}");
    let last = manager.set_token(user, None).await.unwrap();
    assert_eq!(manager.delete_user_tokens(user).await.unwrap(), 1);
    assert!(!is_live(last.expose_secret()).await, "{user:?}");
    assert!(manager.list_user_tokens(user).await.unwrap().is_empty());
}

/// Lets the replica of a primary catch up; `user` is one of that primary's.
async fn replicated(primary: &RedisServer, user: &str) {
    let mut commands = redis::pipe();
    commands
        .set(format!("fence:{{{user}}}"), "")
        .ignore()
        .cmd("WAIT")
        .arg(1)
        .arg(10_000);
    let mut client = primary.client().await;
    let [replicas]: [u32; 1] = commands.query_async(&mut client).await.unwrap();
    assert!(replicas >= 1, "the replica is away");
}

/// Asks a node, past the store.
async fn ask<T: FromRedisValue>(node: &RedisServer, command: &[&str]) -> T {
    from_redis_value(node.cmd(command).await).expect("an answer of this type")
}

/// How often these nodes have answered with this error.
async fn errors(nodes: &[RedisServer], code: &str) -> u64 {
    let mut count = 0;
    for node in nodes {
        let info: String = ask(node, &["INFO", "errorstats"]).await;
        let prefix = format!("errorstat_{code}:count=");
        let counts = info.lines().filter_map(|line| line.strip_prefix(&*prefix));
        count += counts
            .map(|count| count.parse::<u64>().unwrap())
            .sum::<u64>();
    }
    count
}
