//! Callers that go away before they are answered.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_bearer_session::{MySqlStore, SessionStore};

use crate::{
    harness::{MariaDb, Proxy},
    stores::{live, log_in, token_id},
};

/// A client that resets its request costs the database no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_nobody_waits_for_keeps_its_connection() {
    const CHECKS: u64 = 30;
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let url = format!("mysql://app:hunter2@127.0.0.1:{}/sessions", proxy.port());
    let store = MySqlStore::builder(url).deadline(Duration::from_secs(30));
    let store = store.max_connections(1).connect().await.unwrap();
    store.migrate().await.unwrap();
    log_in(&store, "al", &token_id(1)).await;
    live(&store, "al", &token_id(1)).await;
    proxy.set_delay(Duration::from_millis(20));
    let before = mysql.status().await;
    for n in 0..CHECKS {
        let forged = token_id(100 + u128::from(n));
        let check = store.check("al", &forged);
        assert!(timeout(Duration::from_millis(10), check).await.is_err());
    }
    // The only connection is free again, and nobody gets the answer to the question of another.
    live(&store, "al", &token_id(1)).await;
    let after = mysql.status().await;
    // One by age perhaps, and those with which this test asks.
    let opened = after["Connections"] - before["Connections"];
    assert!(opened < CHECKS / 2, "{opened} connections");
    sleep(Duration::from_millis(100)).await;
    assert_eq!(
        mysql.status().await["Aborted_clients"],
        before["Aborted_clients"]
    );
}
