use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::{MySqlConnection, Row};
use tower_bearer_session::{MySqlStore, SessionStore, store::PutMode};

use crate::{
    harness::{MariaDb, Proxy},
    stores::{HOUR, live, log_in, token_id},
};

/// The numbers of `SHOW GLOBAL STATUS`, for one statement and without another connection, whose end the server counts
/// as a statement at a moment of its own.
async fn status(connection: &mut MySqlConnection) -> BTreeMap<String, u64> {
    let status = sqlx::raw_sql("SHOW GLOBAL STATUS");
    let rows = status.fetch_all(connection).await.unwrap();
    let numbers = rows.iter().filter_map(|row| {
        let number: String = row.get(1);
        Some((row.get(0), number.parse().ok()?))
    });
    numbers.collect()
}

/// The connections of the server, except this one.
async fn others(connection: &mut MySqlConnection) -> Vec<i64> {
    let ids = "SELECT ID FROM information_schema.PROCESSLIST \
               WHERE USER = 'app' AND ID <> CONNECTION_ID()";
    let rows = sqlx::raw_sql(ids).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A check is one prepared statement: nothing before it, nothing after it, nothing prepared again.
#[tokio::test]
async fn a_check_is_one_statement() {
    const CHECKS: u64 = 50;
    let mysql = MariaDb::start().await;
    let mut asking = mysql.connect().await.unwrap();
    let store = MySqlStore::builder(mysql.url()).purge_interval(None);
    let store = store.max_connections(1).connect().await.unwrap();
    store.migrate().await.unwrap();
    for user in ["one", "many"] {
        log_in(&store, user, &token_id(0)).await;
        store
            .put_user(user, b"value", HOUR, PutMode::Replace)
            .await
            .unwrap();
        live(&store, user, &token_id(0)).await;
    }
    for n in 1..300 {
        log_in(&store, "many", &token_id(n)).await;
    }
    for (user, id, cached) in [("one", 0, true), ("many", 0, true), ("nobody", 1, false)] {
        let check = async || {
            let checked = store.check(user, &token_id(id)).await.unwrap();
            assert_eq!(
                checked.is_some_and(|checked| checked.user.is_some()),
                cached
            );
        };
        let during = loop {
            let connection = others(&mut asking).await;
            // Done on this connection, if it is still there in the end: then its setup is done as well.
            check().await;
            let before = status(&mut asking).await;
            for _ in 0..CHECKS {
                check().await;
            }
            let after = status(&mut asking).await;
            // Now and then the only connection is replaced, whatever is done on it.
            if connection.len() == 1 && others(&mut asking).await == connection {
                break move |name: &str| after[name] - before[name];
            }
        };
        // And the one that asks.
        assert_eq!(during("Questions"), CHECKS + 1);
        assert_eq!(during("Com_stmt_execute"), CHECKS);
        for nothing in [
            "Com_stmt_prepare",
            "Com_begin",
            "Com_commit",
            "Com_set_option",
            "Com_admin_commands",
            "Handler_update",
            "Handler_delete",
        ] {
            assert_eq!(during(nothing), 0, "{nothing}");
        }
    }
}

/// The same as seen from a slow network.
#[tokio::test]
async fn a_check_is_one_round_trip() {
    const DELAY: Duration = Duration::from_millis(60);
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let url = format!("mysql://app:hunter2@127.0.0.1:{}/sessions", proxy.port());
    let store = MySqlStore::connect(url).await.unwrap();
    store.migrate().await.unwrap();
    log_in(&store, "al", &token_id(1)).await;
    live(&store, "al", &token_id(1)).await;
    proxy.set_delay(DELAY / 2);
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        live(&store, "al", &token_id(1)).await;
        fastest = fastest.min(start.elapsed());
    }
    assert!((DELAY..2 * DELAY).contains(&fastest), "{fastest:?}");
}
