use std::time::{Duration, Instant};

use tower_bearer_session::{MySqlStore, SessionStore, store::PutMode};

use crate::{
    harness::{MariaDb, Proxy},
    stores::{HOUR, live, log_in, token_id},
};

/// A check is one prepared statement: nothing before it, nothing after it, nothing prepared again.
#[tokio::test]
async fn a_check_is_one_statement() {
    const CHECKS: u64 = 50;
    let mysql = MariaDb::start().await;
    let store = MySqlStore::builder(mysql.url()).purge_interval(None);
    let store = store.connect().await.unwrap();
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
        let during = loop {
            // What it takes to ask, twice, is the same both times.
            let start = mysql.status().await;
            let before = mysql.status().await;
            for _ in 0..CHECKS {
                let checked = store.check(user, &token_id(id)).await.unwrap();
                assert_eq!(
                    checked.is_some_and(|checked| checked.user.is_some()),
                    cached
                );
            }
            let after = mysql.status().await;
            let during = move |name: &str| {
                let asking = before[name] - start[name];
                after[name] - before[name] - asking
            };
            // Now and then a connection is replaced, whatever is done on it.
            if during("Connections") == 0 {
                break during;
            }
        };
        assert_eq!(during("Questions"), CHECKS);
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
