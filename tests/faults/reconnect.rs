use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::{JoinHandle, JoinSet},
    time::{interval, sleep},
};
use tower_bearer_session::{RedisStore, TokenManager};

use super::{LONG_TIMEOUT, eventually, is_unavailable, patient_store};
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::HOUR,
};

/// A login whose connection drops is not sent again: the first one may have been done, and its session logged out since
/// then. All other operations are sent again.
#[tokio::test]
async fn a_dropped_login_is_not_repeated() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let manager = TokenManager::new(patient_store(&url(&proxy)).await);
    let token = manager.set_token("al", None).await.unwrap();

    redis.freeze();
    let login = in_flight(&manager, async |manager| {
        manager.set_token("al", None).await
    });
    let check = in_flight(&manager, {
        let token = token.expose_secret().to_owned();
        async move |manager| manager.check_token(&token).await
    });
    let logout = in_flight(&manager, async |manager| {
        manager.delete_user_tokens("bo").await
    });
    // On one thread they are all written before the time is up.
    sleep(Duration::from_millis(200)).await;
    proxy.drop_connections().await;
    assert!(is_unavailable(&login.await.unwrap().unwrap_err()));
    redis.thaw();
    assert_eq!(check.await.unwrap().unwrap().unwrap().id(), "al");
    // The first logout may have found somebody: its answer is lost.
    assert_eq!(logout.await.unwrap().unwrap(), 1);
    manager.set_token("al", None).await.unwrap();
}

/// With a deadline that is short for the network, one dropped connection is one dropped connection: operations that
/// spent their time waiting for the next one do not make it suspect, and so on for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_connection_does_not_start_a_chain() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let builder = RedisStore::builder(url(&proxy)).deadline(Duration::from_millis(150));
    let manager = TokenManager::new(builder.connect().await.unwrap());
    let token = manager.set_token("al", HOUR).await.unwrap();
    proxy.set_delay(Duration::from_millis(20));
    let right_answers_in_a_row = Arc::new(AtomicU64::new(0));
    let load = {
        let (manager, count) = (manager.clone(), Arc::clone(&right_answers_in_a_row));
        let token = token.expose_secret().to_owned();
        tokio::spawn(async move {
            let mut tick = interval(Duration::from_millis(2));
            let mut checks = JoinSet::new();
            loop {
                tick.tick().await;
                let (manager, count, token) = (manager.clone(), Arc::clone(&count), token.clone());
                checks.spawn(async move {
                    match manager.check_token(&token).await {
                        Ok(user) => {
                            assert_eq!(user.expect("a live token").id(), "al");
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => count.store(0, Ordering::Relaxed),
                    }
                });
                while checks.try_join_next().is_some() {}
            }
        })
    };
    let steady = async || right_answers_in_a_row.load(Ordering::Relaxed) > 300;
    eventually("a steady state", steady).await;
    for _ in 0..3 {
        proxy.drop_connections().await;
        right_answers_in_a_row.store(0, Ordering::Relaxed);
        let took = eventually("a steady state after a drop", steady).await;
        println!("300 right answers in a row, {took:?} after a dropped connection");
    }
    load.abort();
}

/// A connection that is to be replaced, but cannot be, and that answers: it stays in use, and health tells why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_works_is_not_given_up_for_none() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let builder = RedisStore::builder(url(&proxy)).deadline(LONG_TIMEOUT);
    let builder = builder.max_connection_age(Duration::from_millis(100));
    let store = builder
        .connect_timeout(LONG_TIMEOUT)
        .connect()
        .await
        .unwrap();
    let manager: TokenManager = TokenManager::new(store.clone());
    let token = manager.set_token("al", None).await.unwrap();
    proxy.refuse(true);
    let told = async || store.health().last_error().is_some();
    eventually("a failed attempt", told).await;
    for _ in 0..50 {
        manager.set_token("al", None).await.unwrap();
        let user = manager.check_token(token.expose_secret()).await;
        assert_eq!(user.unwrap().unwrap().id(), "al");
        assert!(store.is_connected());
        sleep(Duration::from_millis(10)).await;
    }
    proxy.refuse(false);
    let connected_at = || store.health().primaries()[0].connected_at();
    let before = connected_at();
    eventually("a new connection", async || connected_at() > before).await;
    assert_eq!(store.health().reconnects(), 0);
}

/// A connection that reaches its greatest age under load is replaced without an error, logins included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_old_connections_costs_no_operation() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let builder = RedisStore::builder(url(&proxy)).deadline(LONG_TIMEOUT);
    let builder = builder.max_connection_age(Duration::from_millis(20));
    let store = builder
        .connect_timeout(LONG_TIMEOUT)
        .connect()
        .await
        .unwrap();
    proxy.set_delay(Duration::from_millis(1));
    let mut clients = JoinSet::new();
    for number in 0..16 {
        let manager: TokenManager = TokenManager::new(store.clone());
        clients.spawn(async move {
            let user = format!("user{number}");
            for _ in 0..50 {
                let token = manager.set_token(&user, None).await.unwrap();
                let token = token.expose_secret();
                for _ in 0..3 {
                    assert!(manager.check_token(token).await.unwrap().is_some());
                }
                assert!(manager.delete_token(token).await.unwrap());
                assert!(manager.check_token(token).await.unwrap().is_none());
            }
            manager.list_user_tokens(&user).await.unwrap().len()
        });
    }
    assert_eq!(clients.join_all().await.into_iter().sum::<usize>(), 0);
    let health = store.health();
    assert_eq!(health.reconnects(), 0, "{:?}", health.last_error());
    let received = redis.cmd(&["INFO", "stats"]).await;
    let received: String = redis::from_redis_value(received).expect("text");
    let connections = received
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"));
    let connections: u64 = connections.unwrap().parse().unwrap();
    assert!(connections > 10, "{connections} connections");
}

/// A list that is read while its sessions are refreshed has them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_does_not_lose_what_is_refreshed_meanwhile() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let near = TokenManager::new(patient_store(&redis.url()).await);
    let far = TokenManager::new(patient_store(&url(&proxy)).await);
    for _ in 0..2000 {
        near.set_token("al", None).await.unwrap();
    }
    let mut tokens = Vec::new();
    for _ in 0..50 {
        let ttl = Duration::from_millis(500);
        tokens.push(near.set_token("al", ttl).await.unwrap());
    }
    far.list_user_tokens("al").await.unwrap();
    // Now every page takes a while.
    proxy.set_delay(Duration::from_millis(60));
    let list = tokio::spawn(async move { far.list_user_tokens("al").await.unwrap() });
    sleep(Duration::from_millis(200)).await;
    let mut alive = Vec::new();
    for token in &tokens {
        if near
            .refresh_token(token.expose_secret(), HOUR)
            .await
            .unwrap()
        {
            alive.push(token.id());
        }
    }
    let list = list.await.unwrap();
    for id in alive {
        assert!(
            list.iter().any(|info| info.id() == id),
            "{id} was live all the time"
        );
    }
}

/// An operation in a task of its own.
fn in_flight<T, F>(
    manager: &TokenManager,
    operation: impl FnOnce(TokenManager) -> F,
) -> JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    tokio::spawn(operation(manager.clone()))
}

fn url(proxy: &Proxy) -> String {
    format!("redis://127.0.0.1:{}", proxy.port())
}
