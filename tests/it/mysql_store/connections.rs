//! What becomes of connections whose operation waits, times out or goes away.

use std::{
    collections::BTreeSet,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use sqlx::{Connection, Row};
use tokio::time::sleep;
use tower_bearer_session::{ErrorKind, MySqlStore, SessionStore};

use super::eventually;
use crate::{
    harness::{MariaDb, Proxy},
    stores::{HOUR, live, log_in, session, token_id},
};

/// The account of the store under test.
const ACCOUNT: &str = "tested";
const CONNECTIONS: usize = 4;

/// A server with the tables and the account.
async fn server() -> MariaDb {
    let mysql = MariaDb::start().await;
    let store = MySqlStore::connect(mysql.url()).await.unwrap();
    store.migrate().await.unwrap();
    let account = format!(
        "CREATE USER {ACCOUNT} IDENTIFIED BY 'hunter2'; GRANT ALL ON sessions.* TO {ACCOUNT}"
    );
    mysql.sql(&account).await;
    log_in(&store, "al", &token_id(1)).await;
    mysql
}

/// The connections of the account.
async fn ids(mysql: &MariaDb) -> BTreeSet<i64> {
    let ids = format!("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{ACCOUNT}'");
    let rows = mysql.sql(&ids).await;
    rows.iter().map(|row| row.get(0)).collect()
}

/// An operation that timed out because it waited in line for another one of the same user says nothing about the
/// server, so idle connections stay open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_in_the_local_queue_closes_no_idle_connection() {
    /// How many rounds may take too long on a busy machine.
    const ROUNDS: u32 = 20;
    let mysql = server().await;
    for _ in 0..ROUNDS {
        if let Some(idle) = idle_after_a_timeout_in_the_local_queue(&mysql).await {
            // All but those on which the two logins waited.
            assert_eq!(idle, CONNECTIONS - 2);
            return;
        }
    }
    panic!("each of {ROUNDS} rounds took too long");
}

/// How many of several connections are idle after a login has timed out that waited in line for most of its time;
/// `None` if the connections got too old, or the login in front of it timed out.
async fn idle_after_a_timeout_in_the_local_queue(mysql: &MariaDb) -> Option<usize> {
    const DEADLINE: Duration = Duration::from_secs(2);
    /// Idle connections are younger than their maximum age until then.
    const ROUND: Duration = Duration::from_secs(4);
    let start = Instant::now();
    let url = mysql.url().replace("app", ACCOUNT);
    let builder = MySqlStore::builder(url).purge_interval(None);
    let store = builder.deadline(DEADLINE).connect().await.unwrap();
    let id = token_id(1);
    let checks = (0..CONNECTIONS).map(|_| live(&store, "al", &id));
    futures_util::future::join_all(checks).await;
    let mut locked = mysql.connect().await.unwrap();
    let lock =
        "START TRANSACTION; SELECT slot FROM tbs_slots WHERE slot = CRC32('al') % 1024 FOR UPDATE";
    sqlx::raw_sql(lock).execute(&mut locked).await.unwrap();
    let login = |number| {
        let store = store.clone();
        tokio::spawn(async move {
            let new = session(HOUR);
            store.create("al", &token_id(number), &new, None).await
        })
    };
    let (all, first) = (ids(mysql).await, login(2));
    eventually("the first login has a connection and waits", async || {
        let busy = format!(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
             WHERE USER = '{ACCOUNT}' AND INFO LIKE '%FOR UPDATE%'"
        );
        mysql.number(&busy).await == 1 || start.elapsed() > ROUND
    })
    .await;
    let second = login(3);
    // The second login has the rest of its time for the server: too little to tell that the server is silent.
    sleep(DEADLINE * 7 / 10).await;
    first.abort();
    let is_cancelled = first.await.is_err_and(|error| error.is_cancelled());
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    // A closed connection is gone a moment later.
    sleep(Duration::from_millis(300)).await;
    let idle = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
         WHERE USER = '{ACCOUNT}' AND COMMAND = 'Sleep'"
    );
    let idle = mysql.number(&idle).await as usize;
    locked.close().await.unwrap();
    drop(store);
    eventually("no connection", async || ids(mysql).await.is_empty()).await;
    (is_cancelled && all.len() == CONNECTIONS && start.elapsed() < ROUND).then_some(idle)
}

/// A connection that is ready after its operation went away goes to the next one, or is closed in an orderly way.
#[tokio::test]
async fn a_connection_whose_operation_went_away_is_kept() {
    let mysql = server().await;
    let proxy = Proxy::start(mysql.port()).await;
    let url = format!(
        "mysql://{ACCOUNT}:hunter2@127.0.0.1:{}/sessions",
        proxy.port()
    );
    let store = MySqlStore::builder(url)
        .purge_interval(None)
        .deadline(Duration::from_secs(30));
    let store = store.connect().await.unwrap();
    live(&store, "al", &token_id(1)).await;
    let before = mysql.status().await["Aborted_clients"];
    let one = ids(&mysql).await;
    // It keeps the only connection busy.
    proxy.set_delay(Duration::from_millis(300));
    let busy = tokio::spawn({
        let store = store.clone();
        async move { live(&store, "al", &token_id(1)).await }
    });
    tokio::task::yield_now().await;
    let id = token_id(1);
    let mut check = Box::pin(store.check("al", &id));
    let pending = check.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(pending.is_pending());
    proxy.set_delay(Duration::ZERO);
    busy.await.unwrap();
    eventually("another connection", async || {
        ids(&mysql).await.len() > one.len()
    })
    .await;
    // Its setup is done, too.
    sleep(Duration::from_millis(500)).await;
    drop(check);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(mysql.status().await["Aborted_clients"], before);
}
