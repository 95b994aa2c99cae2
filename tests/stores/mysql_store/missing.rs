//! A missing table or privilege is a configuration error of the operations that need it, and of no other.

use std::time::Duration;

use tower_bearer_session::{Error, ErrorKind, MySqlStore, OnFull, SessionStore};

use super::{
    TABLES,
    many_sessions::fill,
    operations::{assert_all_succeed, operations},
};
use crate::{
    harness::MariaDb,
    stores::{HOUR, limit, session, token_id},
};

/// The account of the store under test, which has its privileges table by table: a change of these takes effect at
/// once.
const ACCOUNT: &str = "tested";

const LONG_TIMEOUT: Duration = Duration::from_secs(30);

const LOGIN: &str = "create";
const EVICTION: &str = "create over the limit";
const LOGOUT_OF_MANY: &str = "delete_all of many";

/// A server with the tables, and a store of the account that has worked before.
async fn start() -> (MariaDb, MySqlStore) {
    let mysql = MariaDb::start().await;
    let operator = MySqlStore::connect(mysql.url()).await.unwrap();
    operator.migrate().await.unwrap();
    let account = format!("CREATE USER {ACCOUNT} IDENTIFIED BY 'hunter2'");
    mysql.sql(&account).await;
    for table in TABLES {
        let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON tbs_{table} TO {ACCOUNT}");
        mysql.sql(&grant).await;
    }
    let store = MySqlStore::builder(mysql.url().replace("app", ACCOUNT)).purge_interval(None);
    let store = store.deadline(LONG_TIMEOUT).connect_timeout(LONG_TIMEOUT);
    let store = store.connect().await.unwrap();
    assert_all_succeed(&store).await;
    (mysql, store)
}

/// The names of the operations that fail; each of them fails with a configuration error.
async fn failing(
    store: &MySqlStore,
    others: Vec<(&'static str, Result<(), Error>)>,
) -> Vec<&'static str> {
    let mut failing = Vec::new();
    for (operation, outcome) in operations(store).await.into_iter().chain(others) {
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Config, "{operation}: {error:?}");
            failing.push(operation);
        }
    }
    failing
}

/// It reads no cutoffs, and so lists users whose sessions have ended, but are not removed yet.
const LIST_USERS: &str = "list_users";
const ON_SESSIONS: [&str; 9] = [
    LOGIN,
    "check",
    "list",
    LIST_USERS,
    "update",
    "update a version",
    "delete",
    "delete_all but one",
    "delete_all",
];
const ON_USERS: [&str; 4] = [
    "get_user",
    "put_user if there is none",
    "put_user if unchanged",
    "put_user",
];

fn on_cutoffs() -> Vec<&'static str> {
    let mut operations = ON_SESSIONS.to_vec();
    operations.retain(|operation| *operation != LIST_USERS);
    operations
}

#[tokio::test]
async fn a_missing_table_is_a_configuration_error_of_the_operations_that_need_it() {
    let (mysql, store) = start().await;
    for table in TABLES {
        let expected = match table {
            "schema" => vec!["ping"],
            "sessions" => ON_SESSIONS.to_vec(),
            "cutoffs" => on_cutoffs(),
            "users" => ["check"].into_iter().chain(ON_USERS).collect(),
            // Their rows are locked by logins and logouts of all sessions.
            "slots" => vec![LOGIN, "delete_all but one", "delete_all"],
            _ => unreachable!(),
        };
        mysql
            .sql(&format!("RENAME TABLE tbs_{table} TO gone"))
            .await;
        assert_eq!(failing(&store, Vec::new()).await, expected, "{table}");
        mysql
            .sql(&format!("RENAME TABLE gone TO tbs_{table}"))
            .await;
        assert_all_succeed(&store).await;
    }
}

#[tokio::test]
async fn a_missing_privilege_is_a_configuration_error_of_the_operations_that_need_it() {
    let (mysql, store) = start().await;
    for table in TABLES {
        for privilege in ["SELECT", "INSERT", "UPDATE", "DELETE"] {
            mysql.sql("DELETE FROM tbs_sessions").await;
            mysql.sql("DELETE FROM tbs_cutoffs").await;
            mysql.sql(&fill("tbs_sessions", "full", 1)).await;
            mysql.sql(&fill("tbs_sessions", "many", 600)).await;
            mysql
                .sql(&format!("REVOKE {privilege} ON tbs_{table} FROM {ACCOUNT}"))
                .await;
            let (id, new) = (token_id(2), session(HOUR));
            let limit = limit(1, OnFull::EvictOldest);
            let others = vec![
                (
                    EVICTION,
                    store.create("full", &id, &new, limit).await.map(drop),
                ),
                (
                    LOGOUT_OF_MANY,
                    store.delete_all("many", None).await.map(drop),
                ),
            ];
            let expected = match (table, privilege) {
                ("schema", "SELECT") => vec!["ping"],
                ("sessions", "SELECT") => [&ON_SESSIONS[..], &[EVICTION, LOGOUT_OF_MANY]].concat(),
                ("cutoffs", "SELECT") => [&on_cutoffs()[..], &[EVICTION, LOGOUT_OF_MANY]].concat(),
                ("sessions", "INSERT") => vec![LOGIN, EVICTION],
                ("sessions", "UPDATE") => vec![LOGIN, "update", "update a version", EVICTION],
                ("sessions", "DELETE") => vec![
                    "delete",
                    "delete_all but one",
                    "delete_all",
                    EVICTION,
                    LOGOUT_OF_MANY,
                ],
                ("cutoffs", "INSERT" | "UPDATE") => vec![LOGOUT_OF_MANY],
                ("users", "SELECT") => ["check"].into_iter().chain(ON_USERS).collect(),
                ("users", "INSERT") => vec!["put_user if there is none", "put_user"],
                ("users", "UPDATE") => ON_USERS[1..].to_vec(),
                ("slots", "SELECT") => vec![
                    LOGIN,
                    "delete_all but one",
                    "delete_all",
                    EVICTION,
                    LOGOUT_OF_MANY,
                ],
                _ => vec![],
            };
            let failing = failing(&store, others).await;
            assert_eq!(failing, expected, "{privilege} on {table}");
            mysql
                .sql(&format!("GRANT {privilege} ON tbs_{table} TO {ACCOUNT}"))
                .await;
            assert_all_succeed(&store).await;
        }
    }
}

/// A service may migrate at each start without the privileges of the account that has created the tables.
#[tokio::test]
async fn a_migration_needs_the_privilege_to_create_tables_only_if_one_is_missing() {
    let (mysql, store) = start().await;
    store.migrate().await.unwrap();
    mysql.sql("RENAME TABLE tbs_users TO gone").await;
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("CREATE to migrate"), "{error}");
}
