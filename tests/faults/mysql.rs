//! The same on a [`MySqlStore`] and its MariaDB.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_bearer_session::{Error, ErrorKind, MySqlStore, TokenManager};

use super::{LONG_TIMEOUT, Load, eventually, everything, is_unavailable};
use crate::{
    Server, app, builder,
    harness::{MariaDb, Proxy},
};

type Manager = TokenManager;

async fn service(url: &str) -> Server {
    serve(MySqlStore::connect(url).await.unwrap()).await
}

async fn serve(store: MySqlStore) -> Server {
    store.migrate().await.unwrap();
    Server::axum(app(builder(store).build().unwrap())).await
}

fn through(proxy: &Proxy) -> String {
    format!("mysql://app:hunter2@127.0.0.1:{}/sessions", proxy.port())
}

/// A store that gives up late.
async fn patient_store(url: &str) -> MySqlStore {
    let builder = MySqlStore::builder(url).deadline(LONG_TIMEOUT);
    let store = builder
        .connect_timeout(LONG_TIMEOUT)
        .connect()
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store
}

/// The server is killed and comes back, with its data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_restarted() {
    let mysql = MariaDb::start().await;
    let server = service(&mysql.url()).await;
    let mut load = Load::start(&server).await;
    for down in [Duration::ZERO, Duration::from_secs(2)] {
        mysql.kill();
        load.suffers().await;
        sleep(down).await;
        mysql.restart().await;
        load.recovers("restarted").await;
    }
    load.finish().await;
}

/// The server hangs with all its connections open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_and_thawed() {
    let mysql = MariaDb::start().await;
    let server = service(&mysql.url()).await;
    let mut load = Load::start(&server).await;
    mysql.freeze();
    sleep(Duration::from_millis(300)).await;
    mysql.thaw();
    load.recovers("thawed after 300 ms").await;
    for frozen in [Duration::ZERO, Duration::from_secs(3)] {
        mysql.freeze();
        load.suffers().await;
        sleep(frozen).await;
        mysql.thaw();
        load.recovers("thawed").await;
    }
    load.finish().await;
}

/// A frozen server that never comes back, but is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_then_restarted() {
    let mysql = MariaDb::start().await;
    let server = service(&mysql.url()).await;
    let mut load = Load::start(&server).await;
    mysql.freeze();
    load.suffers().await;
    mysql.restart().await;
    load.recovers("restarted after a freeze").await;
    load.finish().await;
}

/// An outage that no request notices leaves no trace: every connection is stale, and nobody gets an error for it, not
/// even who logs in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_passes_an_idle_service_by() {
    let mysql = MariaDb::start().await;
    let manager = Manager::new(patient_store(&mysql.url()).await);
    let mut tokens = Vec::new();
    for number in 0..8 {
        tokens.push(
            manager
                .set_token(&format!("al{number}"), None)
                .await
                .unwrap(),
        );
    }
    mysql.restart().await;
    let (one, other) = tokio::join!(
        manager.check_token(tokens[0].expose_secret()),
        manager.set_token("bo", None)
    );
    assert_eq!(one.unwrap().unwrap().id(), "al0");
    other.unwrap();
    for (number, token) in tokens.iter().enumerate() {
        // All that were open are in the pool again.
        let checks = tokens
            .iter()
            .map(|token| manager.check_token(token.expose_secret()));
        futures_util::future::join_all(checks).await;
        mysql.end_connections().await;
        assert!(manager.delete_token(token.expose_secret()).await.unwrap());
        manager
            .set_token(&format!("bo{number}"), None)
            .await
            .unwrap();
    }
}

/// The network goes away, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_refused() {
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let server = service(&through(&proxy)).await;
    let mut load = Load::start(&server).await;
    proxy.refuse(true);
    proxy.drop_connections().await;
    load.suffers().await;
    proxy.refuse(false);
    load.recovers("no longer refused").await;
    load.finish().await;
}

/// Connections that drop while the server is fine cost nobody an error but who is logging in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connections_go_unnoticed() {
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let server = serve(patient_store(&through(&proxy)).await).await;
    let mut load = Load::start(&server).await;
    for _ in 0..10 {
        proxy.drop_connections().await;
        load.recovers("dropped").await;
        // An operation that met this drop does not meet the next one.
        load.answers_each_client().await;
    }
    assert_eq!(load.unavailable_but_logins(), 0);
    load.finish().await;
}

/// The flows of one moment are lost without a sign, with whatever their transactions have locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_flows_are_black_holed() {
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let server = service(&through(&proxy)).await;
    let mut load = Load::start(&server).await;
    for _ in 0..3 {
        proxy.black_hole_existing();
        load.suffers().await;
        load.recovers("black-holed").await;
    }
    load.finish().await;
}

/// A client that is cut off in the middle of a login does not keep others of the same user out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_login_unlocks_its_user() {
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let lost = MySqlStore::connect(through(&proxy)).await.unwrap();
    lost.migrate().await.unwrap();
    let lost = Manager::new(lost);
    lost.set_token("al", None).await.unwrap();
    // Long enough for every login to be somewhere in its transaction.
    proxy.set_delay(Duration::from_millis(20));
    let login = tokio::spawn(async move { lost.set_token("al", None).await });
    sleep(Duration::from_millis(130)).await;
    proxy.black_hole_existing();

    let manager = Manager::new(MySqlStore::connect(mysql.url()).await.unwrap());
    let took = eventually("a login", async || {
        manager.set_token("al", None).await.is_ok()
    })
    .await;
    let error = login.await.unwrap().expect_err("a login that was cut off");
    println!("another login after {took:?}; the lost one: {error:?}");
}

/// While the server is frozen every operation ends, with a fault that may pass, and does no harm afterwards: all
/// logins that were acknowledged are valid, and there are no more sessions than there were attempts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_timed_out_do_no_harm() {
    let mysql = MariaDb::start().await;
    patient_store(&mysql.url()).await;
    let store = MySqlStore::builder(mysql.url()).deadline(Duration::from_millis(500));
    let manager = Manager::new(store.connect().await.unwrap());
    let (mut acknowledged, mut timed_out) = (BTreeSet::<String>::new(), 0);
    for round in 0..4 {
        let (mut early, mut logins) = (Vec::new(), JoinSet::new());
        for number in 0..30 {
            let manager = manager.clone();
            let login = async move { manager.set_token("al", None).await };
            // Some before the freeze, some while it begins, some in the middle of it.
            match number {
                0..10 => early.push(login.await),
                _ => _ = logins.spawn(login),
            }
            if number == 20 {
                sleep(Duration::from_millis(2 * round)).await;
                mysql.freeze();
            }
        }
        for login in early.into_iter().chain(logins.join_all().await) {
            match login {
                Ok(token) => assert!(acknowledged.insert(token.expose_secret().into())),
                Err(error) => {
                    assert!(may_pass(&error), "{error:?}");
                    timed_out += 1;
                }
            }
        }
        mysql.thaw();
        eventually("recovery", async || {
            manager.list_user_tokens("al").await.is_ok()
        })
        .await;
        for token in &acknowledged {
            let check = async || manager.check_token(token).await;
            eventually("an answer", async || check().await.is_ok()).await;
            let user = check().await.unwrap();
            assert_eq!(user.expect("a live session").id(), "al");
        }
    }
    println!("{} acknowledged, {timed_out} failed", acknowledged.len());
    assert!(timed_out > 0);
    let sessions = manager.list_user_tokens("al").await.unwrap().len();
    assert!(sessions >= acknowledged.len());
    assert!(sessions <= acknowledged.len() + timed_out);
}

/// A logout that timed out can be repeated until it is acknowledged, and is final then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_after_a_freeze_is_final() {
    let mysql = MariaDb::start().await;
    patient_store(&mysql.url()).await;
    let store = MySqlStore::builder(mysql.url()).deadline(Duration::from_millis(100));
    let manager = Manager::new(store.connect().await.unwrap());
    for _ in 0..4 {
        let mut token = None;
        eventually("a login", async || {
            token = manager.set_token("al", None).await.ok();
            token.is_some()
        })
        .await;
        let token = token.unwrap();
        let token = token.expose_secret();
        mysql.freeze();
        for _ in 0..4 {
            let error = manager.refresh_token(token, None).await.unwrap_err();
            assert!(may_pass(&error), "{error:?}");
            manager.delete_token(token).await.unwrap_err();
            manager.delete_user_tokens("al").await.unwrap_err();
        }
        mysql.thaw();
        eventually("logout", async || manager.delete_token(token).await.is_ok()).await;
        for _ in 0..3 {
            let check = async || manager.check_token(token).await;
            eventually("an answer", async || check().await.is_ok()).await;
            assert!(!matches!(check().await, Ok(Some(_))));
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Callers that go away at any moment never shift the answers of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_do_not_mix_up_answers() {
    let mysql = MariaDb::start().await;
    let manager: TokenManager<String> = TokenManager::builder(patient_store(&mysql.url()).await)
        .load_user(async |id: String| Ok::<_, std::io::Error>(Some(id)))
        .build()
        .unwrap();
    let mut callers = JoinSet::new();
    for number in 0..16_u64 {
        let manager = manager.clone();
        callers.spawn(async move {
            let id = format!("user {number}");
            let token = manager.set_token(&id, None).await.unwrap();
            let token = token.expose_secret();
            let (mut random, mut dropped) = (number + 1, 0);
            for _ in 0..100 {
                // xorshift64
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let check = manager.check_token_or_update_user(token, None);
                let patience = Duration::from_micros(random % 6000);
                let Ok(user) = timeout(patience, check).await else {
                    dropped += 1;
                    continue;
                };
                let user = user.unwrap().expect("a live session");
                assert_eq!(user.id(), id);
                assert_eq!(user.detail(), Some(&id));
            }
            dropped
        });
    }
    let dropped: u32 = callers.join_all().await.into_iter().sum();
    println!("{dropped} of 1600 checks were dropped");
    assert!(dropped < 1600);
}

/// What is wrong is said at once, without the password.
#[tokio::test]
async fn connecting_fails_with_a_reason() {
    let mysql = MariaDb::start().await;
    let url = |account: &str, database: &str| {
        format!("mysql://{account}@127.0.0.1:{}/{database}", mysql.port())
    };
    for (url, kind, part) in [
        (
            url("app:hunter3", "sessions"),
            ErrorKind::Unavailable,
            "1045",
        ),
        (
            url("nobody:hunter3", "sessions"),
            ErrorKind::Unavailable,
            "1045",
        ),
        (url("app", "sessions"), ErrorKind::Unavailable, "1045"),
        (url("app:hunter2", "nothing"), ErrorKind::Config, "1049"),
    ] {
        let error = MySqlStore::connect(&url).await.unwrap_err();
        let text = everything(&error);
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(part), "{text}");
        assert!(!text.contains("hunter"), "{text}");
    }
    mysql.kill();
    let error = MySqlStore::connect(mysql.url()).await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
    assert!(everything(&error).contains("refused"), "{error:?}");
}

/// Somebody is there, who never answers: the connect timeout ends the wait.
#[tokio::test]
async fn connecting_to_a_silent_peer_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let start = Instant::now();
    let error = MySqlStore::connect(format!("mysql://app@127.0.0.1:{port}/sessions")).await;
    assert!(is_unavailable(&error.unwrap_err()));
    assert!(start.elapsed() < LONG_TIMEOUT);
}

/// A fault of the store, that is gone later.
fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable)
}
