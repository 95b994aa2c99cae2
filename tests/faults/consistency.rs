use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::timeout};
use tower_bearer_session::{ErrorKind, RedisStore, TokenManager};

use super::{eventually, patient_store};
use crate::harness::{Flavor, Proxy, RedisServer};

type Manager = TokenManager;

/// A frozen server does nothing, after it thaws, of what nobody waits for any more: all logins that were acknowledged
/// are valid, and there are no other sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_timed_out_do_no_harm() {
    let redis = RedisServer::start(Flavor::Redis).await;
    // A busy machine looks like a busy server, with such a deadline.
    let store = RedisStore::builder(redis.url())
        .deadline(Duration::from_millis(100))
        .load_shedding(false);
    let manager = Manager::new(store.connect().await.unwrap());
    let (mut acknowledged, mut timed_out) = (BTreeSet::<String>::new(), 0);
    for round in 0..5 {
        let mut logins = JoinSet::new();
        // Some before the freeze, some while it begins, some in the middle of it.
        for number in 0..40 {
            let manager = manager.clone();
            let login = async move { manager.set_token("al", None).await };
            match number {
                0..10 => assert!(acknowledged.insert(login.await.unwrap().expose_secret().into())),
                _ => _ = logins.spawn(login),
            }
            if number == 25 {
                redis.freeze();
            }
        }
        let mut failed = 0;
        for login in logins.join_all().await {
            match login {
                Ok(token) => assert!(acknowledged.insert(token.expose_secret().into())),
                Err(error) => {
                    let kinds = [ErrorKind::Timeout, ErrorKind::Unavailable];
                    assert!(kinds.contains(&error.kind()), "{error:?}");
                    failed += 1;
                }
            }
        }
        timed_out += failed;
        redis.thaw();
        eventually("recovery", async || {
            manager.list_user_tokens("al").await.is_ok()
        })
        .await;
        println!("round {round}: {failed} logins failed");
        for token in &acknowledged {
            let user = manager.check_token(token).await.unwrap();
            assert_eq!(user.expect("a live session").id(), "al");
        }
    }
    assert!(timed_out > 0);
    let sessions = manager.list_user_tokens("al").await.unwrap().len();
    assert_eq!(sessions, acknowledged.len());
    manager.delete_user_tokens("al").await.unwrap();
    assert!(manager.list_user_tokens("al").await.unwrap().is_empty());
}

/// A logout that timed out can be repeated until it is acknowledged, and is final then: nothing that was
/// sent before comes in later and brings the session back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_after_a_freeze_is_final() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let store = RedisStore::builder(redis.url())
        .deadline(Duration::from_millis(50))
        .load_shedding(false);
    let manager = Manager::new(store.connect().await.unwrap());
    for _ in 0..5 {
        let token = manager.set_token("al", None).await.unwrap();
        let token = token.expose_secret();
        redis.freeze();
        for _ in 0..5 {
            manager.refresh_token(token, None).await.unwrap_err();
            manager.delete_token(token).await.unwrap_err();
        }
        redis.thaw();
        eventually("logout", async || manager.delete_token(token).await.is_ok()).await;
        assert!(manager.check_token(token).await.unwrap().is_none());
        // Whatever was still under way has arrived when a new connection is answered twice.
        redis.cmd(&["PING"]).await;
        redis.cmd(&["PING"]).await;
        assert!(manager.check_token(token).await.unwrap().is_none());
        assert!(!manager.refresh_token(token, None).await.unwrap());
    }
}

/// Callers that go away at any moment never shift the answers of others: everybody gets their own user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_do_not_mix_up_answers() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let store = patient_store(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    // The user's detail is the user's own id, so that a mixed-up answer shows.
    let manager: TokenManager<String> = TokenManager::builder(store)
        .load_user(async |id: String| Ok::<_, std::io::Error>(Some(id)))
        .build()
        .unwrap();
    proxy.set_delay(Duration::from_millis(1));
    let mut callers = JoinSet::new();
    for number in 0..64_u64 {
        let manager = manager.clone();
        callers.spawn(async move {
            let id = format!("user {number}");
            let token = manager.set_token(&id, None).await.unwrap();
            let token = token.expose_secret();
            let (mut random, mut dropped) = (number + 1, 0);
            let mut usual = Duration::ZERO;
            for number in 0_u32..300 {
                // xorshift64
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                // Mostly around the time that an answer takes, on this machine.
                let patience = match number.is_multiple_of(10) {
                    true => Duration::MAX,
                    false => usual.mul_f64((random % 2000) as f64 / 1000.0),
                };
                let start = Instant::now();
                let check = manager.check_token_or_update_user(token, None);
                let Ok(user) = timeout(patience, check).await else {
                    dropped += 1;
                    continue;
                };
                if number.is_multiple_of(10) {
                    usual = start.elapsed();
                }
                let user = user.unwrap().expect("a live session");
                assert_eq!(user.id(), id);
                assert_eq!(user.detail(), Some(&id));
            }
            dropped
        });
    }
    let dropped: u32 = callers.join_all().await.into_iter().sum();
    println!("{dropped} of {} checks were dropped", 64 * 300);
    assert!(dropped > 0);
}
