//! Writes that the server refuses because it got to them after their deadline.

use std::time::{Duration, Instant};

use sqlx::Row;
use tower_bearer_session::{SessionStore, test_util::Backend as _};

use crate::stores::{Backend, DAY, HOUR, MySql, listed, live, log_in, session, token_id};

/// Connections are younger than their renewal during a round that is done within this time.
const ROUND: Duration = Duration::from_secs(2);
/// How many rounds may take longer than that on a busy machine.
const ROUNDS: u32 = 20;
const CONNECTIONS: usize = 6;

/// One late write ends its own connection only, and is done on another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_late_ends_only_its_own_connection() {
    let tables = MySql::start().await;
    let (server, left) = (tables.server(), tables.table("left"));
    // An engine without transactions: the count stays when the server undoes the statement.
    server
        .sql(&format!("CREATE TABLE {left} (n INT) ENGINE = MyISAM"))
        .await;
    server.sql(&format!("INSERT INTO {left} VALUES (0)")).await;
    for event in ["INSERT", "UPDATE", "DELETE"] {
        let trigger = format!(
            "CREATE TRIGGER {}_{event} BEFORE {event} ON {} FOR EACH ROW \
             IF (SELECT n FROM {left}) > 0 THEN UPDATE {left} SET n = n - 1; \
             SIGNAL SQLSTATE '22003' SET MYSQL_ERRNO = 1690; END IF",
            tables.table("trigger"),
            tables.table("sessions")
        );
        server.sql(&trigger).await;
    }
    let account = tables.table("account");
    server
        .sql(&format!(
            "CREATE USER {account} IDENTIFIED BY 'hunter2'; GRANT ALL ON sessions.* TO {account}"
        ))
        .await;
    let ids = async || {
        let ids = format!(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{account}' ORDER BY ID"
        );
        let rows = server.sql(&ids).await;
        rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>()
    };
    let patient = tables.store().await;
    for write in ["create", "update", "delete", "delete_all"] {
        let mut round = 1;
        loop {
            patient.delete_all("al", None).await.unwrap();
            log_in(&patient, "al", &token_id(1)).await;
            let store = tables
                .builder()
                .username(&*account)
                .purge_interval(None)
                .connect();
            let (start, store) = (Instant::now(), store.await.unwrap());
            let id = token_id(1);
            let checks = (0..CONNECTIONS).map(|_| live(&store, "al", &id));
            futures_util::future::join_all(checks).await;
            let before = ids().await;
            server.sql(&format!("UPDATE {left} SET n = 1")).await;
            match write {
                "create" => {
                    let new = session(HOUR);
                    store.create("al", &token_id(2), &new, None).await.unwrap();
                }
                "update" => assert!(store.refresh("al", &id, DAY).await.unwrap()),
                "delete" => assert!(store.delete("al", &id).await.unwrap()),
                _ => assert_eq!(store.delete_all("al", None).await.unwrap(), 1),
            }
            assert_eq!(server.number(&format!("SELECT n FROM {left}")).await, 0);
            let expected = match write {
                "create" => vec![token_id(1), token_id(2)],
                "update" => vec![token_id(1)],
                _ => Vec::new(),
            };
            assert_eq!(listed(&patient, "al").await, expected, "{write}");
            let after = ids().await;
            drop(store);
            if start.elapsed() < ROUND {
                let kept = before.iter().filter(|id| after.contains(id)).count();
                assert!(before.len() > 1, "{before:?}");
                assert!(kept + 1 >= before.len(), "{write}: {before:?}, {after:?}");
                break;
            }
            // Connections are renewed by their age, too, and this round was too slow to tell.
            assert!(round < ROUNDS, "no round was fast enough");
            round += 1;
        }
    }
}
