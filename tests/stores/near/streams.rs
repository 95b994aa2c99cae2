//! Streams that end with their sessions: what they cost while nothing happens, and when they end.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Response, header::AUTHORIZATION};
use tokio::{task::JoinSet, time::sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{NearCache, RedisStore, Session, SessionLayer, Token, TokenManager};

use super::{LONG_TIMEOUT, lasting};
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::{commands_of, patient},
};

const USERS: usize = 1000;
const DEVICES: usize = 10;

/// The manager of a service that hears of logouts elsewhere by announcements only.
async fn manager(url: String, near: NearCache) -> TokenManager {
    let store = patient(RedisStore::builder(url)).near_cache(near);
    let builder = TokenManager::builder(store.connect().await.unwrap());
    let builder = builder.revocation_poll(Duration::from_secs(3600));
    builder.build().unwrap()
}

async fn session(manager: &TokenManager, token: &Token) -> Session {
    let handler = service_fn(async |request: Request<()>| {
        let session = request.extensions().get::<Session>().cloned();
        Ok::<_, Infallible>(Response::new(session))
    });
    let request =
        Request::builder().header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
    let layer = SessionLayer::new(manager.clone());
    let response = layer.layer(handler).oneshot(request.body(()).unwrap());
    response.await.unwrap().into_body().expect("a session")
}

/// Thousands of streams ask nothing while nothing happens, and each ends with its own session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_over_one_connection() {
    let server = RedisServer::start(Flavor::Redis).await;
    let elsewhere = TokenManager::new(
        patient(RedisStore::builder(server.url()))
            .connect()
            .await
            .unwrap(),
    );
    let here = manager(server.url(), lasting()).await;
    let mut tokens = Vec::new();
    for n in 0..USERS * DEVICES {
        let user = format!("user {}", n % USERS);
        tokens.push(elsewhere.set_token(&user, None).await.unwrap());
    }
    let open = Arc::new(AtomicUsize::new(0));
    let mut streams = JoinSet::new();
    for token in &tokens {
        let (session, open) = (session(&here, token).await, Arc::clone(&open));
        open.fetch_add(1, Ordering::SeqCst);
        streams.spawn(async move {
            session.revoked().await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
    // Until the last one has been checked for the first time.
    crate::eventually("no first check any more", async || {
        let (commands, ()) = commands_of(&server, sleep(Duration::from_millis(500))).await;
        !commands.contains_key("hget")
    })
    .await;
    let (idle, ()) = commands_of(&server, sleep(Duration::from_secs(2))).await;
    let lookups =
        ["eval", "evalsha", "hget", "get"].map(|name| idle.get(name).copied().unwrap_or(0));
    // Heartbeats get a key each.
    assert!(lookups[..3] == [0; 3] && lookups[3] < 10, "{idle:?}");
    assert_eq!(open.load(Ordering::SeqCst), USERS * DEVICES);

    // One device of each user, and no other.
    for token in &tokens[..USERS] {
        assert!(elsewhere.delete_token(token.expose_secret()).await.unwrap());
    }
    let begun = Instant::now();
    let left = USERS * (DEVICES - 1);
    crate::eventually("the end of the streams", async || {
        open.load(Ordering::SeqCst) == left
    })
    .await;
    println!(
        "{USERS} streams have ended {:?} after the last logout",
        begun.elapsed()
    );
    sleep(Duration::from_millis(100)).await;
    assert_eq!(open.load(Ordering::SeqCst), left);

    // All of them.
    let mut lags = Vec::new();
    for user in 0..USERS {
        let before = open.load(Ordering::SeqCst);
        let ended = elsewhere
            .delete_user_tokens(&format!("user {user}"))
            .await
            .unwrap();
        assert_eq!(ended, DEVICES as u64 - 1);
        let begun = Instant::now();
        crate::eventually("their end", async || {
            open.load(Ordering::SeqCst) + DEVICES - 1 == before
        })
        .await;
        lags.push(begun.elapsed());
    }
    lags.sort();
    println!(
        "all streams of a user: p50 {:?}, p99 {:?}",
        lags[USERS / 2],
        lags[USERS * 99 / 100]
    );
    let all = tokio::time::timeout(LONG_TIMEOUT, streams.join_all());
    assert_eq!(all.await.unwrap().len(), USERS * DEVICES);
}

/// Where the server announces only what was read, it announces the end of a session again after other changes.
#[tokio::test]
async fn streams_hear_of_what_their_process_has_read() {
    let server = RedisServer::start(Flavor::Redis).await;
    let elsewhere = patient(RedisStore::builder(server.url()));
    let elsewhere = TokenManager::new(elsewhere.connect().await.unwrap());
    let here = manager(server.url(), lasting().per_key()).await;
    let (doomed, other) = (
        elsewhere.set_token("al", None).await.unwrap(),
        elsewhere.set_token("al", None).await.unwrap(),
    );
    let (ending, staying) = (session(&here, &doomed).await, session(&here, &other).await);
    let ending = tokio::spawn(ending.revoked());
    let staying = tokio::spawn(staying.revoked());
    for _ in 0..3 {
        let (commands, ()) = commands_of(&server, async {
            elsewhere
                .refresh_token(other.expose_secret(), None)
                .await
                .unwrap();
            sleep(Duration::from_millis(200)).await;
        })
        .await;
        assert!(commands.contains_key("hget"), "nobody looked: {commands:?}");
    }
    assert!(!ending.is_finished() && !staying.is_finished());
    assert!(
        elsewhere
            .delete_token(doomed.expose_secret())
            .await
            .unwrap()
    );
    tokio::time::timeout(LONG_TIMEOUT, ending)
        .await
        .expect("the end")
        .unwrap();
    assert!(!staying.is_finished());
}

/// As long as the near-cache has the session, the polls of its streams ask nothing.
#[tokio::test]
async fn polls_are_hits() {
    let server = RedisServer::start(Flavor::Redis).await;
    let store = patient(RedisStore::builder(server.url())).near_cache(lasting());
    let builder = TokenManager::builder(store.connect().await.unwrap());
    let builder = builder.revocation_poll(Duration::from_millis(50));
    let manager = builder.build().unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    let session = session(&manager, &token).await;
    let stream = tokio::spawn(session.revoked());
    crate::eventually("a second without a lookup", async || {
        let (commands, ()) = commands_of(&server, sleep(Duration::from_secs(1))).await;
        !commands.contains_key("hget")
    })
    .await;
    assert!(!stream.is_finished());
    assert!(session.log_out().await.unwrap());
    tokio::time::timeout(LONG_TIMEOUT, stream)
        .await
        .unwrap()
        .unwrap();
}

/// What was announced while the connection was broken is not known: everybody looks.
#[tokio::test]
async fn a_logout_during_an_outage_ends_a_stream_after_it() {
    let server = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(server.port()).await;
    let elsewhere = TokenManager::new(
        patient(RedisStore::builder(server.url()))
            .connect()
            .await
            .unwrap(),
    );
    let here = manager(format!("redis://127.0.0.1:{}", proxy.port()), lasting()).await;
    let (doomed, other) = (
        elsewhere.set_token("al", None).await.unwrap(),
        elsewhere.set_token("bo", None).await.unwrap(),
    );
    let ending = session(&here, &doomed).await;
    let staying = session(&here, &other).await;
    let (mut ending, staying) = (
        tokio::spawn(ending.revoked()),
        tokio::spawn(staying.revoked()),
    );
    sleep(Duration::from_millis(100)).await;
    proxy.refuse(true);
    proxy.drop_connections().await;
    assert!(
        elsewhere
            .delete_token(doomed.expose_secret())
            .await
            .unwrap()
    );
    sleep(Duration::from_millis(300)).await;
    assert!(!ending.is_finished());
    proxy.refuse(false);
    tokio::time::timeout(LONG_TIMEOUT, &mut ending)
        .await
        .expect("the end")
        .unwrap();
    assert!(!staying.is_finished());
}

/// Without a near-cache the server announces nothing, and the streams of a session share the checks.
#[tokio::test]
async fn streams_of_one_session_share_its_checks() {
    let server = RedisServer::start(Flavor::Redis).await;
    let store = patient(RedisStore::builder(server.url()))
        .connect()
        .await
        .unwrap();
    let builder = TokenManager::builder(store).revocation_poll(Duration::from_millis(100));
    let manager = builder.build().unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    let session = session(&manager, &token).await;
    let mut streams = JoinSet::new();
    for _ in 0..100 {
        streams.spawn(session.revoked());
    }
    let (idle, ()) = commands_of(&server, sleep(Duration::from_secs(2))).await;
    // About one each 100 ms, and a few for those who join; not a hundred times as many.
    assert!((1..200).contains(&idle["hget"]), "{idle:?}");
    assert!(session.log_out().await.unwrap());
    let all = tokio::time::timeout(LONG_TIMEOUT, streams.join_all());
    assert_eq!(all.await.unwrap().len(), 100);
}

/// A stream of a session that has ended already does not wait for the next poll of those before it.
#[tokio::test]
async fn whoever_joins_is_told_at_once() {
    let server = RedisServer::start(Flavor::Redis).await;
    let store = patient(RedisStore::builder(server.url()))
        .connect()
        .await
        .unwrap();
    let builder = TokenManager::builder(store).revocation_poll(Duration::from_secs(3600));
    let manager = builder.build().unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    let session = session(&manager, &token).await;
    let mut first = tokio::spawn(session.revoked());
    // It has been checked, and is waiting.
    sleep(Duration::from_millis(200)).await;
    assert!(session.log_out().await.unwrap());
    let both = async { tokio::join!(session.revoked(), &mut first).1.unwrap() };
    tokio::time::timeout(LONG_TIMEOUT, both).await.unwrap();
}

/// A task of one runtime is not what streams of another one depend on.
#[tokio::test]
async fn streams_of_several_runtimes_end() {
    let manager = TokenManager::new(tower_bearer_session::MemoryStore::new());
    let token = manager.set_token("al", None).await.unwrap();
    let session = session(&manager, &token).await;
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let first = other.spawn(session.revoked());
    // It begins to wait, and then its runtime stands still.
    let standing = std::thread::spawn(move || {
        other.block_on(async { sleep(Duration::from_millis(50)).await });
        other
    });
    let other = tokio::task::spawn_blocking(|| standing.join().unwrap())
        .await
        .unwrap();
    let here = tokio::spawn(session.revoked());
    sleep(Duration::from_millis(50)).await;
    assert!(session.log_out().await.unwrap());
    tokio::time::timeout(LONG_TIMEOUT, here)
        .await
        .unwrap()
        .unwrap();
    assert!(!first.is_finished());
    other.shutdown_background();
}
