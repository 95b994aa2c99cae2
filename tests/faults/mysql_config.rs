//! What has to be changed in the configuration of a MySQL server or account is no outage: it does not pass.

use tower_bearer_session::{Error, ErrorKind, MySqlStore, SessionStore};

use super::everything;
use crate::{
    harness::MariaDb,
    stores::{HOUR, session, token_id},
};

fn url(mysql: &MariaDb, account: &str, database: &str) -> String {
    format!("mysql://{account}@127.0.0.1:{}/{database}", mysql.port())
}

#[track_caller]
fn assert_config(error: &Error, part: &str) {
    let text = everything(error);
    assert_eq!(error.kind(), ErrorKind::Config, "{text}");
    assert!(text.contains(part), "{text}");
    assert!(!text.contains("hunter"), "{text}");
}

/// Each names what is missing.
#[tokio::test]
async fn accounts_that_cannot_work_are_configuration_errors() {
    let mysql = MariaDb::start().await;
    let store = MySqlStore::connect(mysql.url()).await.unwrap();
    store.migrate().await.unwrap();
    for statement in [
        "INSTALL SONAME 'auth_ed25519'",
        "CREATE USER reader IDENTIFIED BY 'hunter2'",
        "GRANT SELECT ON sessions.* TO reader",
        "CREATE USER nothing IDENTIFIED BY 'hunter2'",
        "CREATE USER modern IDENTIFIED VIA ed25519 USING PASSWORD('hunter2')",
        "GRANT ALL ON sessions.* TO modern",
    ] {
        mysql.sql(statement).await;
    }
    let reader = url(&mysql, "reader:hunter2", "sessions");
    let reader = MySqlStore::connect(reader).await.unwrap();
    let error = reader
        .create("al", &token_id(1), &session(HOUR), None)
        .await;
    assert_config(&error.unwrap_err(), "privilege");
    let error = reader.delete("al", &token_id(1)).await;
    assert_config(&error.unwrap_err(), "privilege");
    for (account, database, part) in [
        ("nothing:hunter2", "sessions", "privilege"),
        ("app:hunter2", "nowhere", "no such database"),
        ("modern:hunter2", "sessions", "authentication plugin"),
    ] {
        let error = MySqlStore::connect(url(&mysql, account, database)).await;
        assert_config(&error.unwrap_err(), part);
    }
}

/// InnoDB cannot log what the store does in that way.
#[tokio::test]
async fn a_server_that_logs_statements_is_a_configuration_error() {
    let options = ["--log-bin", "--server-id=1", "--binlog-format=STATEMENT"];
    let mysql = MariaDb::start_with(&options).await;
    let store = MySqlStore::connect(mysql.url()).await.unwrap();
    assert_config(&store.migrate().await.unwrap_err(), "binlog_format");
    for format in ["ROW", "MIXED"] {
        mysql
            .sql(&format!("SET GLOBAL binlog_format = {format}"))
            .await;
        let store = MySqlStore::connect(mysql.url()).await.unwrap();
        store.migrate().await.unwrap();
        store
            .create("al", &token_id(1), &session(HOUR), None)
            .await
            .unwrap();
    }
}

/// A server whose clock stands still during a statement would revive what expires meanwhile.
#[tokio::test]
async fn a_server_with_sysdate_is_now_is_a_configuration_error() {
    let mysql = MariaDb::start_with(&["--sysdate-is-now"]).await;
    let store = MySqlStore::connect(mysql.url()).await;
    assert_config(&store.unwrap_err(), "sysdate-is-now");
}
