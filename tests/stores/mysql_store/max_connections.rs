//! The maximum number of connections holds on this side, whatever the server does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, task::JoinSet};
use tower_bearer_session::{ErrorKind, MySqlStore, MySqlStoreBuilder, SessionStore};

use super::eventually;
use crate::{
    harness::{MariaDb, Proxy},
    stores::{live, log_in, token_id},
};

/// The account of the store under test.
const ACCOUNT: &str = "tested";
const MAX: usize = 3;
const OPERATIONS: u128 = 15;
/// The age at which the store begins to replace its connections.
const RENEWAL_AGE: Duration = Duration::from_secs(3);
const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// A server with the tables and the account, a proxy in front of it, and a store through the proxy.
async fn stores(deadline: Duration) -> (MariaDb, Proxy, MySqlStore) {
    let mysql = MariaDb::start().await;
    let direct = MySqlStore::connect(mysql.url()).await.unwrap();
    direct.migrate().await.unwrap();
    let account = format!(
        "CREATE USER {ACCOUNT} IDENTIFIED BY 'hunter2'; GRANT ALL ON sessions.* TO {ACCOUNT}"
    );
    mysql.sql(&account).await;
    for number in 0..OPERATIONS {
        log_in(&direct, &format!("al{number}"), &token_id(number)).await;
    }
    let proxy = Proxy::start(mysql.port()).await;
    let store = builder(&proxy, deadline).connect().await.unwrap();
    (mysql, proxy, store)
}

fn builder(proxy: &Proxy, deadline: Duration) -> MySqlStoreBuilder {
    let url = format!(
        "mysql://{ACCOUNT}:hunter2@127.0.0.1:{}/sessions",
        proxy.port()
    );
    let builder = MySqlStore::builder(url).purge_interval(None);
    let builder = builder.max_connections(MAX as u32).deadline(deadline);
    // All operations are to ask for a connection.
    builder.connect_timeout(LONG_TIMEOUT).load_shedding(false)
}

/// Operations that find all connections in use wait for one, and open no other.
///
/// Counts until the store begins to replace connections: the server may list one for a moment after the store has closed
/// it. A round in which a busy machine has not opened all connections by then is repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_operations_share_the_maximum_of_connections() {
    const ROUNDS: usize = 20;
    let (mysql, proxy, store) = stores(LONG_TIMEOUT).await;
    drop(store);
    for _ in 0..ROUNDS {
        let ids = format!("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{ACCOUNT}'");
        eventually("no connections of an earlier round", async || {
            mysql.sql(&ids).await.is_empty()
        })
        .await;
        let began = Instant::now();
        let store = builder(&proxy, LONG_TIMEOUT).connect().await.unwrap();
        // Without this, one connection would be enough for all.
        proxy.set_delay(Duration::from_millis(50));
        let mut operations = JoinSet::new();
        for number in 0..OPERATIONS {
            let store = store.clone();
            operations.spawn(async move {
                let (user, id) = (format!("al{number}"), token_id(number));
                live(&store, &user, &id).await;
            });
        }
        let mut most = 0;
        while !operations.is_empty() {
            let open = mysql.sql(&ids).await.len();
            if began.elapsed() < RENEWAL_AGE {
                assert!(open <= MAX, "{open}");
                most = most.max(open);
            }
            while let Some(done) = operations.try_join_next() {
                done.unwrap();
            }
        }
        proxy.set_delay(Duration::ZERO);
        if most == MAX {
            return;
        }
    }
    panic!("in no round were {MAX} connections open at once within {RENEWAL_AGE:?}");
}

/// Attempts to connect that outlast their operations count, too: a server that accepts connections and then stays
/// silent is not flooded with more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_to_connect_to_a_silent_server_count_towards_the_maximum() {
    const ROUNDS: usize = 3;
    let (_mysql, proxy, store) = stores(Duration::from_millis(200)).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.redirect(silent.local_addr().unwrap().port());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    let accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            open.push(silent.accept().await.unwrap());
            counter.store(open.len(), Ordering::Relaxed);
        }
    });
    // The connection that is open already fails.
    proxy.drop_connections().await;
    for round in 0..ROUNDS {
        let ids: Vec<_> = (0..OPERATIONS)
            .map(|number| (format!("al{number}"), token_id(number)))
            .collect();
        let checks = ids.iter().map(|(user, id)| store.check(user, id));
        for checked in futures_util::future::join_all(checks).await {
            let error = checked.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{round}: {error:?}");
        }
    }
    eventually("as many attempts as allowed", async || {
        accepted.load(Ordering::Relaxed) >= MAX
    })
    .await;
    assert_eq!(accepted.load(Ordering::Relaxed), MAX);
    accepting.abort();
}
