//! A [`MySqlStore`] whose server is set read-only, or whose name begins to lead to another server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower_bearer_session::{ErrorKind, MySqlStore, MySqlStoreBuilder, SessionStore};

use super::{LONG_TIMEOUT, eventually, is_unavailable, within};
use crate::{
    harness::{MariaDb, Proxy},
    stores::{HOUR, is_live, log_in, session, token_id},
};

/// No operation begins on a connection that is older, as the documentation of the store promises.
const MAX_AGE: Duration = Duration::from_secs(5);
/// An account that `read_only` holds for, unlike the tests' own.
const PLAIN: &str = "CREATE USER plain IDENTIFIED BY 'hunter2'; GRANT ALL ON sessions.* TO plain";

/// Two servers with the same sessions, and a name that leads to the first one.
struct Moving {
    old: MariaDb,
    new: MariaDb,
    name: Proxy,
}

impl Moving {
    async fn start() -> Self {
        let (old, new) = tokio::join!(MariaDb::start(), MariaDb::start());
        for server in [&old, &new] {
            server.sql(PLAIN).await;
            let store = patient(server.url()).connect().await.unwrap();
            store.migrate().await.unwrap();
            for n in 0..20 {
                log_in(&store, "al", &token_id(n)).await;
            }
        }
        let name = Proxy::start(old.port()).await;
        Self { old, new, name }
    }

    async fn store(&self) -> MySqlStore {
        let url = format!(
            "mysql://plain:hunter2@127.0.0.1:{}/sessions",
            self.name.port()
        );
        patient(url).connect().await.unwrap()
    }

    /// A store in use by many at once: its connections are all open.
    async fn busy(&self) -> (MySqlStore, Busy) {
        let store = self.store().await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for n in 0..16 {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let _ = store.check("al", &token_id(n)).await;
                }
            });
        }
        sleep(Duration::from_millis(200)).await;
        (store, Busy { stop, tasks })
    }
}

struct Busy {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Busy {
    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

/// A store that gives up late.
fn patient(url: String) -> MySqlStoreBuilder {
    MySqlStore::builder(url)
        .deadline(LONG_TIMEOUT)
        .connect_timeout(LONG_TIMEOUT)
        .purge_interval(None)
}

/// Whether a session is live, says a server that may say so; a fault is no answer.
async fn accepted(store: &MySqlStore, n: u128) -> bool {
    matches!(store.check("al", &token_id(n)).await, Ok(Some(_)))
}

/// What is read-only may be a replica that does not know of a logout yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_read_only_answers_no_check() {
    let mysql = MariaDb::start().await;
    // It may write nevertheless; so nothing but the check itself can tell.
    let store = MySqlStore::connect(mysql.url()).await.unwrap();
    store.migrate().await.unwrap();
    log_in(&store, "al", &token_id(1)).await;
    assert!(is_live(&store, "al", &token_id(1)).await);
    mysql.sql("SET GLOBAL read_only = 1").await;
    for n in [1, 2] {
        let error = store.check("al", &token_id(n)).await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
        assert!(format!("{error:?}").contains("read-only"), "{error:?}");
    }
    let error = store.ping().await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
    let error = MySqlStore::connect(mysql.url()).await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
    // That there is no such session says nothing, either.
    for refreshes in [true, false] {
        mysql.sql("SET GLOBAL read_only = 0").await;
        eventually("a connection", async || store.ping().await.is_ok()).await;
        mysql.sql("SET GLOBAL read_only = 1").await;
        let id = token_id(9);
        let changed = match refreshes {
            true => store.refresh("al", &id, HOUR).await,
            false => store.delete("al", &id).await,
        };
        assert!(is_unavailable(&changed.unwrap_err()), "{refreshes}");
    }
    mysql.sql("SET GLOBAL read_only = 0").await;
    eventually("it answers again", async || {
        store.ping().await.is_ok() && is_live(&store, "al", &token_id(1)).await
    })
    .await;
}

/// The old server is set read-only and goes on; a logout is refused there, and done by the new one. Whatever was under
/// way meanwhile, nobody asks the old one any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_logout_at_the_new_server_the_old_one_is_not_asked() {
    let moving = Moving::start().await;
    let (store, busy) = moving.busy().await;
    let (other, others) = moving.busy().await;
    let idle = moving.store().await;
    assert!(accepted(&idle, 1).await);
    moving.old.sql("SET GLOBAL read_only = 1").await;
    moving.name.redirect(moving.new.port());
    for n in 0..5 {
        assert!(store.delete("al", &token_id(n)).await.unwrap());
        for _ in 0..200 {
            assert!(!accepted(&store, n).await);
        }
        assert!(!accepted(&other, n).await);
        assert!(!accepted(&idle, n).await);
    }
    busy.stop().await;
    others.stop().await;
}

/// The same if the old server says nothing of it, but drops one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_lost_connection_the_others_are_not_used_again() {
    let moving = Moving::start().await;
    let (store, busy) = moving.busy().await;
    moving.name.redirect(moving.new.port());
    // All of them but the one that began first, so that a logout soon meets one.
    moving.old.end_some_connections("plain").await;
    eventually("a check by the new server", async || {
        moving
            .new
            .number("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'plain'")
            .await
            > 0
    })
    .await;
    eventually("no connection to the old server", async || {
        moving
            .old
            .number("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'plain'")
            .await
            == 0
    })
    .await;
    assert!(store.delete("al", &token_id(0)).await.unwrap());
    assert!(!accepted(&store, 0).await);
    busy.stop().await;
}

/// The old server goes on as if nothing had happened, and takes writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_store_follows_its_name_within_seconds() {
    let moving = Moving::start().await;
    let (store, busy) = moving.busy().await;
    moving.name.redirect(moving.new.port());
    let moved = Instant::now();
    let direct = patient(moving.new.url()).connect().await.unwrap();
    assert!(direct.delete("al", &token_id(1)).await.unwrap());
    // A check that is called later cannot begin in time, however busy the machine is.
    let end = moved + MAX_AGE;
    loop {
        let called = Instant::now();
        let accepted = accepted(&store, 1).await;
        if called >= end {
            assert!(!accepted, "{:?} after the move", called - moved);
            break;
        }
    }
    let limit = Duration::from_secs(20);
    let old = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'plain'";
    within(limit, "no connection to the old server", async || {
        moving.old.number(old).await == 0
    })
    .await;
    for _ in 0..200 {
        assert!(!accepted(&store, 1).await);
    }
    busy.stop().await;
}

/// The first check after a pause is not answered by a server that the name led to before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_store_follows_its_name_at_once() {
    let moving = Moving::start().await;
    let (store, busy) = moving.busy().await;
    busy.stop().await;
    moving.name.redirect(moving.new.port());
    let moved = Instant::now();
    let direct = patient(moving.new.url()).connect().await.unwrap();
    assert!(direct.delete("al", &token_id(1)).await.unwrap());
    sleep_until(moved + MAX_AGE).await;
    for _ in 0..20 {
        assert!(!accepted(&store, 1).await);
    }
    assert!(accepted(&store, 2).await);
}

/// Nobody gets an error for a connection that has become too old, and no server a warning into its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_too_old_are_closed_as_they_should_be() {
    let mysql = MariaDb::start().await;
    mysql.sql(PLAIN).await;
    let url = mysql.url().replace("app", "plain");
    let store = patient(url).connect().await.unwrap();
    store.migrate().await.unwrap();
    log_in(&store, "al", &token_id(1)).await;
    let ids = async || {
        let ids = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'plain' ORDER BY ID";
        let rows = mysql.sql(ids).await;
        rows.iter()
            .map(|row| sqlx::Row::get(row, 0))
            .collect::<Vec<i64>>()
    };
    let before = (mysql.status().await["Aborted_clients"], mysql.warnings());
    let id = token_id(1);
    let all = async || {
        let checks = (0..10).map(|_| store.check("al", &id));
        for check in futures_util::future::join_all(checks).await {
            assert!(check.unwrap().is_some());
        }
    };
    all().await;
    let first = ids().await;
    assert!(!first.is_empty());
    // Some go while they are in use, and all others while nobody needs them.
    for _ in 0..6 {
        sleep(Duration::from_secs(1)).await;
        assert!(is_live(&store, "al", &token_id(1)).await);
    }
    eventually("all the old ones are closed", async || {
        all().await;
        ids().await.iter().all(|id| !first.contains(id))
    })
    .await;
    drop(store);
    eventually("all are closed", async || ids().await.is_empty()).await;
    assert_eq!(
        (mysql.status().await["Aborted_clients"], mysql.warnings()),
        before
    );
}

/// A login on a connection to a server that became read-only is one at the new server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_the_old_server_refuses_is_one_at_the_new_server() {
    let moving = Moving::start().await;
    let (store, busy) = moving.busy().await;
    busy.stop().await;
    moving.old.sql("SET GLOBAL read_only = 1").await;
    moving.name.redirect(moving.new.port());
    let new = session(HOUR);
    match store.create("al", &token_id(100), &new, None).await {
        Ok(_) => {}
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            store
                .create("al", &token_id(100), &new, None)
                .await
                .unwrap();
        }
    }
    let direct = patient(moving.new.url()).connect().await.unwrap();
    assert!(is_live(&direct, "al", &token_id(100)).await);
}
