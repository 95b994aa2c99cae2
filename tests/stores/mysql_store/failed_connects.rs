//! Attempts to connect that fail, beside connections that are open.

use std::{collections::BTreeSet, future::ready, pin::pin, time::Duration};

use sqlx::{Connection, MySqlConnection, Row};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tower_bearer_session::{ErrorKind, MySqlStore, SessionStore};

use super::eventually;
use crate::{
    harness::{MariaDb, Proxy},
    stores::{HOUR, is_live, log_in, session, token_id},
};

/// How long anything may take that has to happen, on however busy a machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);
/// The account of the store under test.
const ACCOUNT: &str = "tested";

/// A server with a session, and a store that reaches it through a proxy, over one open connection.
struct Scene {
    mysql: MariaDb,
    proxy: Proxy,
    store: MySqlStore,
    /// A moment before the store opened its connection.
    since: Instant,
}

impl Scene {
    async fn new() -> Self {
        let mysql = MariaDb::start().await;
        let operator = MySqlStore::connect(mysql.url()).await.unwrap();
        operator.migrate().await.unwrap();
        log_in(&operator, "al", &token_id(1)).await;
        let account = format!(
            "CREATE USER {ACCOUNT} IDENTIFIED BY 'hunter2'; GRANT ALL ON sessions.* TO {ACCOUNT}"
        );
        mysql.sql(&account).await;
        let proxy = Proxy::start(mysql.port()).await;
        let url = format!(
            "mysql://{ACCOUNT}:hunter2@127.0.0.1:{}/sessions",
            proxy.port()
        );
        let store = MySqlStore::builder(url)
            .purge_interval(None)
            .max_connections(2)
            .connect_timeout(LONG_TIMEOUT)
            .deadline(LONG_TIMEOUT);
        let since = Instant::now();
        let store = store.connect().await.unwrap();
        assert!(is_live(&store, "al", &token_id(1)).await);
        Self {
            mysql,
            proxy,
            store,
            since,
        }
    }

    /// Keeps the open connection busy until the lock is released.
    async fn busy_login(&self) -> (MySqlConnection, JoinHandle<()>) {
        let mut lock = self.mysql.connect().await.unwrap();
        let statement = "START TRANSACTION; \
                         SELECT slot FROM tbs_slots WHERE slot = CRC32('bo') % 1024 FOR UPDATE";
        sqlx::raw_sql(statement).execute(&mut lock).await.unwrap();
        let store = self.store.clone();
        let login = tokio::spawn(async move {
            let new = session(HOUR);
            store.create("bo", &token_id(2), &new, None).await.unwrap();
        });
        let waiting = format!(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
             WHERE USER = '{ACCOUNT}' AND INFO LIKE '%FOR UPDATE%'"
        );
        eventually("the login waits for the lock", async || {
            self.mysql.number(&waiting).await == 1
        })
        .await;
        (lock, login)
    }

    /// Waits until the store has so many connections to the proxy.
    async fn flows(&self, count: usize) {
        eventually("an attempt to connect", async || {
            self.proxy.open_flows() == count
        })
        .await;
    }

    /// The open connections of the store, by the server's numbers.
    async fn ids(&self) -> BTreeSet<i64> {
        let ids = format!("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{ACCOUNT}'");
        let rows = self.mysql.sql(&ids).await;
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// An operation whose attempt to connect fails still survives an idle connection that is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_connect_is_not_the_loss_of_a_connection() {
    let scene = Scene::new().await;
    let (lock, login) = scene.busy_login().await;
    scene.proxy.black_hole_new(true);
    // No connection is idle, so the check opens one.
    let id = token_id(1);
    let mut check = pin!(scene.store.check("al", &id));
    tokio::select! {
        biased;
        _ = &mut check => panic!("a check without a connection"),
        () = ready(()) => {}
    }
    scene.flows(2).await;
    lock.close().await.unwrap();
    login.await.unwrap();
    // Now the other connection is idle.
    scene.proxy.black_hole_new(false);
    scene.proxy.drop_connections().await;
    let checked = timeout(LONG_TIMEOUT, check).await.unwrap();
    assert!(checked.unwrap().is_some());
}

/// The same in the other order: the dead connection first, then the failed attempt to connect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_of_a_connection_is_not_a_failed_connect() {
    let scene = Scene::new().await;
    scene.proxy.black_hole_new(true);
    scene.proxy.drop_connections().await;
    let store = scene.store.clone();
    let check = tokio::spawn(async move { store.check("al", &token_id(1)).await });
    scene.flows(1).await;
    scene.proxy.black_hole_new(false);
    scene.proxy.drop_connections().await;
    let checked = timeout(LONG_TIMEOUT, check).await.unwrap();
    assert!(checked.unwrap().unwrap().is_some());
}

/// That a server accepts no new connections is no reason to close the open ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_connect_closes_no_open_connection() {
    /// Connections are younger than their renewal until then.
    const ROUND: Duration = Duration::from_millis(2500);
    /// How many rounds may take too long on a busy machine.
    const ROUNDS: u32 = 20;
    for _ in 0..ROUNDS {
        let scene = Scene::new().await;
        let before = scene.ids().await;
        let (lock, login) = scene.busy_login().await;
        scene.proxy.refuse(true);
        let error = scene.store.check("al", &token_id(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        lock.close().await.unwrap();
        login.await.unwrap();
        scene.proxy.refuse(false);
        assert!(is_live(&scene.store, "al", &token_id(1)).await);
        let after = scene.ids().await;
        if scene.since.elapsed() < ROUND {
            assert_eq!(after, before);
            return;
        }
    }
    panic!("each of {ROUNDS} rounds took too long");
}
