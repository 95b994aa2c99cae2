//! Writes that a server reads late, after their callers were told that they failed.

use std::time::{Duration, SystemTime};

use sqlx::Row;
use tokio::time::sleep;
use tower_bearer_session::{
    Error, ErrorKind, MySqlStore, OnFull, SessionStore,
    store::{PutMode, SessionChange, SessionLimit},
};

use super::{eventually, fill, uncommitted};
use crate::{
    harness::{MariaDb, Proxy},
    stores::{
        DAY, HOUR, is_live, limit, listed, live_session, log_in, replacement, session, token_id,
    },
};

const DEADLINE: Duration = Duration::from_millis(500);

/// A store with one connection on which each statement that the tests freeze is prepared already, and another store.
async fn stores(mysql: &MariaDb) -> (MySqlStore, MySqlStore) {
    let patient = MySqlStore::builder(mysql.url())
        .deadline(Duration::from_secs(30))
        .connect_timeout(Duration::from_secs(30));
    let patient = patient.connect().await.unwrap();
    patient.migrate().await.unwrap();
    let account = "CREATE USER frozen IDENTIFIED BY 'hunter2'; GRANT ALL ON sessions.* TO frozen";
    mysql.sql(account).await;
    let frozen = MySqlStore::builder(mysql.url().replace("app", "frozen"))
        .max_connections(1)
        .purge_interval(None)
        .deadline(DEADLINE);
    (patient, frozen.connect().await.unwrap())
}

/// Freezes the server, lets the write time out, and thaws the server; returns when the write has been read.
async fn while_frozen<T: std::fmt::Debug>(
    mysql: &MariaDb,
    write: impl Future<Output = Result<T, Error>>,
) {
    let ids =
        "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'frozen' ORDER BY ID DESC";
    let id: i64 = mysql.sql(ids).await[0].get(0);
    mysql.freeze();
    let error = write.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    mysql.thaw();
    // The server ends the connection after it has done what it had been told on it.
    let gone = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {id}");
    eventually("the frozen connection has ended", async || {
        mysql.number(&gone).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_logout_does_nothing() {
    let mysql = MariaDb::start().await;
    let (patient, frozen) = stores(&mysql).await;
    log_in(&patient, "al", &token_id(1)).await;
    eventually("a prepared statement", async || {
        frozen.delete("al", &token_id(2)).await.is_ok()
    })
    .await;
    while_frozen(&mysql, frozen.delete("al", &token_id(1))).await;
    assert!(is_live(&patient, "al", &token_id(1)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_refresh_does_nothing() {
    let mysql = MariaDb::start().await;
    let (patient, frozen) = stores(&mysql).await;
    log_in(&patient, "al", &token_id(1)).await;
    eventually("a prepared statement", async || {
        frozen.refresh("al", &token_id(2), HOUR).await.is_ok()
    })
    .await;
    let before = live_session(&patient, "al", &token_id(1)).await;
    while_frozen(&mysql, frozen.refresh("al", &token_id(1), DAY)).await;
    let after = live_session(&patient, "al", &token_id(1)).await;
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_replacement_does_nothing() {
    let mysql = MariaDb::start().await;
    let (patient, frozen) = stores(&mysql).await;
    let [id, new] = [1, 3].map(token_id);
    let before = log_in(&patient, "al", &id).await;
    let mut change = replacement(id, new, HOUR);
    for is_conditional in [true, false] {
        change.if_token = change.if_token.filter(|_| is_conditional);
        eventually("a prepared statement", async || {
            frozen.update("al", &token_id(2), &change).await.is_ok()
        })
        .await;
        while_frozen(&mysql, frozen.update("al", &id, &change)).await;
        assert_eq!(live_session(&patient, "al", &id).await, before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_cached_value_is_not_written() {
    let mysql = MariaDb::start().await;
    let (patient, frozen) = stores(&mysql).await;
    for (user, there) in [("al", true), ("bo", false)] {
        let old = || patient.put_user(user, b"old", HOUR, PutMode::Replace);
        let mut modes = vec![PutMode::Replace, PutMode::IfUnchanged(None)];
        if there {
            assert!(old().await.unwrap());
            modes = vec![PutMode::Replace, PutMode::IfUnchanged(Some(b"old"))];
        }
        for mode in modes {
            eventually("a prepared statement", async || {
                frozen.put_user("else", b"old", HOUR, mode).await.is_ok()
            })
            .await;
            while_frozen(&mysql, frozen.put_user(user, b"late", HOUR, mode)).await;
            let value = patient.get_user(user).await.unwrap();
            assert_eq!(value.as_deref(), there.then_some(&b"old"[..]), "{mode:?}");
        }
    }
}

/// Freezes the server when the work of a transaction, which changes `rows`, is done and its end is under way. "al" has
/// so many `sessions`, with the token ids from 1 on.
async fn frozen_before_commit<T: std::fmt::Debug>(
    mysql: &MariaDb,
    rows: i64,
    sessions: usize,
    write: impl AsyncFn(&MySqlStore) -> Result<T, Error>,
) {
    const EACH_WAY: Duration = Duration::from_millis(500);
    let proxy = Proxy::start(mysql.port()).await;
    let url = format!("mysql://app:hunter2@127.0.0.1:{}/sessions", proxy.port());
    // Some writes take more statements than others.
    let deadline = Duration::from_secs(if rows < 512 { 12 } else { 20 });
    let store = MySqlStore::builder(url)
        .purge_interval(None)
        .deadline(deadline);
    let store = store.connect().await.unwrap();
    let fill = fill("tbs_sessions", "al", sessions);
    // Prepares the statements.
    mysql.sql(&fill).await;
    write(&store).await.unwrap();
    let clear = "DELETE FROM tbs_sessions; DELETE FROM tbs_cutoffs";
    mysql.sql(&format!("{clear}; {fill}")).await;
    proxy.set_delay(EACH_WAY);
    let (error, ()) = tokio::join!(write(&store), async {
        eventually("the changes", async || uncommitted(mysql, rows).await > 0).await;
        mysql.freeze();
    });
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    // Whatever the proxy holds arrives at the frozen server.
    sleep(2 * EACH_WAY).await;
    mysql.thaw();
    eventually("the transaction has ended", async || {
        uncommitted(mysql, 1).await == 0
    })
    .await;
}

async fn a_late_login_does_nothing(limit: Option<SessionLimit>) {
    let mysql = MariaDb::start().await;
    let (patient, _) = stores(&mysql).await;
    let login = async |store: &MySqlStore| {
        store
            .create("al", &token_id(2), &session(HOUR), limit)
            .await
    };
    // It inserts a session, and with a limit it deletes another one before.
    let rows = 1 + i64::from(limit.is_some());
    frozen_before_commit(&mysql, rows, 1, login).await;
    assert_eq!(listed(&patient, "al").await, [token_id(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_login_without_a_limit_does_nothing() {
    a_late_login_does_nothing(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_login_evicts_nobody() {
    a_late_login_does_nothing(limit(1, OnFull::EvictOldest)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_logout_of_all_sessions_does_nothing() {
    let mysql = MariaDb::start().await;
    let (patient, _) = stores(&mysql).await;
    let logout = async |store: &MySqlStore| store.delete_all("al", None).await;
    frozen_before_commit(&mysql, 1, 1, logout).await;
    assert_eq!(listed(&patient, "al").await, [token_id(1)]);
}

/// With few other sessions, which it deletes, and with many, for which it raises the cutoff.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_update_ends_no_other_session() {
    let id = token_id(1);
    let new = replacement(id, token_id(1000), HOUR);
    // It updates the session and deletes the other one; or it deletes 512, writes the cutoff and keeps the session.
    for (mut change, sessions, rows) in [
        (SessionChange::refresh(DAY), 2, 2),
        (new.clone(), 2, 2),
        (new, 600, 1 + 512 + 1 + 1),
    ] {
        change.end_others = true;
        let mysql = MariaDb::start().await;
        let (patient, _) = stores(&mysql).await;
        let update = async |store: &MySqlStore| store.update("al", &id, &change).await;
        frozen_before_commit(&mysql, rows, sessions, update).await;
        let list = patient.list("al").await.unwrap();
        assert_eq!(list.len(), sessions, "{change:?}");
        let (_, session) = list.iter().find(|(listed, _)| *listed == id).unwrap();
        assert_eq!(session.rotation, None);
        let refreshed = Duration::from_millis(sessions as u64 - 1);
        assert_eq!(session.refreshed_at, SystemTime::UNIX_EPOCH + refreshed);
    }
}
