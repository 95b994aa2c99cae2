//! What becomes of connections whose operation waits, times out or goes away.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
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

/// When the caller of an operation goes away while its connection is being opened.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gone {
    BeforeItIsReady,
    WhenItIsReady,
}

/// A connection that is opened for an operation that goes away serves the next ones: it stays the same, and no other
/// one is opened in its place.
#[tokio::test]
async fn a_connection_whose_operation_went_away_is_kept() {
    /// How many rounds may take too long on a busy machine.
    const ROUNDS: u32 = 20;
    let mysql = server().await;
    for gone in [Gone::BeforeItIsReady, Gone::WhenItIsReady] {
        let mut round = 1;
        while !keeps_the_connection(&mysql, gone).await {
            assert!(round < ROUNDS, "each of {ROUNDS} rounds took too long");
            round += 1;
        }
    }
}

/// Whether a round was fast enough to tell: connections are renewed by their age, too.
async fn keeps_the_connection(mysql: &MariaDb, gone: Gone) -> bool {
    /// Connections are younger than their renewal until then.
    const ROUND: Duration = Duration::from_millis(2500);
    const DELAY: Duration = Duration::from_millis(100);
    let start = Instant::now();
    let proxy = Proxy::start(mysql.port()).await;
    let url = format!(
        "mysql://{ACCOUNT}:hunter2@127.0.0.1:{}/sessions",
        proxy.port()
    );
    let store = MySqlStore::builder(url)
        .purge_interval(None)
        .max_connections(2)
        .deadline(Duration::from_secs(30));
    let store = store.connect().await.unwrap();
    let id = token_id(1);
    live(&store, "al", &id).await;
    let aborted = mysql.status().await["Aborted_clients"];
    // One check keeps the only connection busy while the other one begins to open a second.
    proxy.set_delay(DELAY);
    let busy = tokio::spawn({
        let store = store.clone();
        async move { live(&store, "al", &token_id(1)).await }
    });
    tokio::task::yield_now().await;
    let woken = Arc::new(Woken::default());
    let mut check = Box::pin(store.check("al", &id));
    let waker = Waker::from(Arc::clone(&woken));
    let pending = check.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(pending.is_pending());
    if gone == Gone::WhenItIsReady {
        eventually("the connection is ready", async || {
            woken.0.load(Ordering::Relaxed)
        })
        .await;
    }
    eventually("a second connection", async || ids(mysql).await.len() == 2).await;
    let two = ids(mysql).await;
    drop(check);
    busy.await.unwrap();
    // These need both connections at once.
    tokio::join!(live(&store, "al", &id), live(&store, "al", &id));
    let after = ids(mysql).await;
    let aborted_after = mysql.status().await["Aborted_clients"];
    let is_fast = start.elapsed() < ROUND;
    drop(store);
    eventually("no connection", async || ids(mysql).await.is_empty()).await;
    if is_fast {
        assert_eq!(after, two, "{gone:?}");
        assert_eq!(aborted_after, aborted, "{gone:?}");
    }
    is_fast
}

/// Remembers that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
