//! Logouts and refreshes that wait for replicas.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tower_bearer_session::{Error, ErrorKind, RedisStore, TokenManager};

use super::{LONG_TIMEOUT, SentinelSet, calm_down, eventually, is_live, manager, replicated};
use crate::{harness::RedisServer, stores::HOUR};

/// A manager that wants both replicas to confirm, and else has time.
async fn confirming(set: &SentinelSet, timeout: Duration) -> TokenManager {
    let store = RedisStore::builder(set.url()).deadline(LONG_TIMEOUT);
    let store = store.confirm_replicas(2, timeout).connect().await;
    TokenManager::new(store.expect("a store"))
}

/// Logs in so many times.
async fn tokens(manager: &TokenManager, count: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    for _ in 0..count {
        let token = manager.set_token("al", None).await.unwrap();
        tokens.push(token.expose_secret().to_owned());
    }
    tokens
}

/// Whether an operation was done, but not confirmed.
fn is_unconfirmed<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(error) if error.kind() == ErrorKind::Unconfirmed)
}

/// The one that follows.
fn a_replica(set: &SentinelSet) -> &RedisServer {
    &set.nodes()[2]
}

/// The master is killed while users log out, one failover after the other: who was told to be logged out is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_logout_survives_a_kill() {
    let set = SentinelSet::start().await;
    for round in 0..2 {
        let leaving = confirming(&set, Duration::from_secs(5)).await;
        let old = set.master().await;
        let tokens = tokens(&leaving, 400).await;
        replicated(old, 2).await;
        let confirmed = Arc::new(Semaphore::new(0));
        let mut logouts = JoinSet::new();
        for tokens in tokens.chunks(50) {
            let (tokens, leaving) = (tokens.to_vec(), leaving.clone());
            let confirmed = Arc::clone(&confirmed);
            logouts.spawn(async move {
                let mut gone = Vec::new();
                for token in tokens {
                    match leaving.delete_token(&token).await {
                        Ok(_) => {
                            gone.push(token);
                            confirmed.add_permits(1);
                        }
                        Err(error) => assert!(error.is_fault(), "{error:?}"),
                    }
                }
                gone
            });
        }
        let some = timeout(LONG_TIMEOUT, confirmed.acquire_many(40)).await;
        drop(some.expect("40 logouts"));
        old.kill();
        let gone = logouts.join_all().await.concat();
        println!("round {round}: {} of 400 logouts confirmed", gone.len());

        set.new_master(old).await;
        let fresh = manager(&set.url()).await;
        for token in &gone {
            assert!(!is_live(&fresh, token).await, "a logout was undone");
        }
        old.restart().await;
        set.wait_until_whole().await;
    }
}

/// The master is killed as soon as the last logout is confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_after_the_confirmation_is_too_late() {
    let set = SentinelSet::start().await;
    for _ in 0..2 {
        let leaving = confirming(&set, Duration::from_secs(5)).await;
        let old = set.master().await;
        let tokens = tokens(&leaving, 50).await;
        let (all, single) = tokens.split_last().unwrap();
        replicated(old, 2).await;
        for token in single {
            assert!(leaving.delete_token(token).await.unwrap());
        }
        assert!(leaving.refresh_token(all, HOUR * 100).await.unwrap());
        assert_eq!(leaving.delete_user_tokens("al").await.unwrap(), 1);
        old.kill();
        set.new_master(old).await;
        let fresh = manager(&set.url()).await;
        for token in &tokens {
            assert!(!is_live(&fresh, token).await, "a logout was undone");
        }
        old.restart().await;
        set.wait_until_whole().await;
    }
}

/// With a replica that hangs, logouts and refreshes are done and say that they are not confirmed; and are confirmed
/// again, when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_hangs() {
    let set = SentinelSet::start().await;
    calm_down(&set).await;
    let manager = confirming(&set, Duration::from_millis(200)).await;
    let all = tokens(&manager, 8).await;
    let [single, other, refreshed, twice, ..] = &all[..] else {
        panic!("too few tokens");
    };
    let kept = manager.set_token("al", None).await.unwrap();
    a_replica(&set).freeze();
    assert!(is_unconfirmed(&manager.delete_token(single).await));
    assert!(!is_live(&manager, single).await);

    assert!(is_unconfirmed(&manager.delete_token(twice).await));
    // It is gone, but that is no more certain than before.
    assert!(is_unconfirmed(&manager.delete_token(twice).await));

    assert!(is_unconfirmed(
        &manager.refresh_token(refreshed, HOUR).await
    ));
    let user = manager.check_token(refreshed).await.unwrap().unwrap();
    let remaining = user.token_remaining().unwrap();
    assert!(
        (HOUR - LONG_TIMEOUT..=HOUR).contains(&remaining),
        "{remaining:?}"
    );
    // Nothing was done.
    assert!(!manager.refresh_token(single, HOUR).await.unwrap());

    let others = manager.delete_other_user_tokens("al", kept.id()).await;
    assert!(is_unconfirmed(&others));
    assert!(!is_live(&manager, other).await);
    assert!(is_live(&manager, kept.expose_secret()).await);
    assert!(is_unconfirmed(&manager.delete_user_tokens("al").await));
    assert!(!is_live(&manager, kept.expose_secret()).await);
    // Logins do not wait.
    let later = tokens(&manager, 1).await;

    a_replica(&set).thaw();
    let took = eventually("a confirmation", async || {
        manager.delete_token(&later[0]).await.is_ok()
    })
    .await;
    println!("confirmed again after {took:?}");
    let last = tokens(&manager, 1).await;
    assert!(manager.delete_token(&last[0]).await.unwrap());
}

/// Who waits for a confirmation keeps nobody from a check or a login.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_do_not_wait_for_confirmations() {
    let set = SentinelSet::start().await;
    calm_down(&set).await;
    let manager = confirming(&set, Duration::from_secs(10)).await;
    let tokens = tokens(&manager, 10).await;
    let (live, leaving) = tokens.split_last().unwrap();
    a_replica(&set).freeze();
    let mut logouts = JoinSet::new();
    for token in leaving {
        let (manager, token) = (manager.clone(), token.clone());
        logouts.spawn(async move { is_unconfirmed(&manager.delete_token(&token).await) });
    }
    eventually("logouts", async || !is_live(&manager, &leaving[0]).await).await;
    let start = Instant::now();
    for _ in 0..200 {
        assert!(is_live(&manager, live).await);
        manager.set_token("bo", None).await.unwrap();
    }
    println!("200 checks and logins took {:?}", start.elapsed());
    assert!(logouts.try_join_next().is_none(), "they still wait");
    assert_eq!(logouts.join_all().await, [true; 9]);
}

/// Many who wait for a replica that hangs wait together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmations_do_not_queue_up() {
    let set = SentinelSet::start().await;
    calm_down(&set).await;
    let wait = Duration::from_millis(200);
    let manager = confirming(&set, wait).await;
    let tokens = tokens(&manager, 50).await;
    a_replica(&set).freeze();
    for round in 0..2 {
        let start = Instant::now();
        let mut logouts = JoinSet::new();
        for token in tokens.clone() {
            let manager = manager.clone();
            logouts.spawn(async move { is_unconfirmed(&manager.delete_token(&token).await) });
        }
        assert_eq!(logouts.join_all().await, [true; 50]);
        let took = start.elapsed();
        println!("round {round}: 50 logouts took {took:?}");
        assert!(took < 20 * wait, "{took:?}");
    }
    for token in &tokens {
        assert!(!is_live(&manager, token).await);
    }
}
