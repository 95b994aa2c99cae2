use sqlx::Row;
use tower_bearer_session::{Error, ErrorKind, MySqlStore, SessionStore, test_util::Backend as _};

use crate::stores::{Backend, MySql, at_once, is_live, log_in, token_id};

/// A store without tables says what to do, whatever is asked of it; and then it works.
#[tokio::test]
async fn without_tables_the_error_says_what_to_do() {
    let tables = MySql::without_tables().await;
    let store = tables.store().await;
    for error in [
        store.check("al", &token_id(1)).await.unwrap_err(),
        store.delete_all("al", None).await.unwrap_err(),
        store.list("al").await.unwrap_err(),
        store.ping().await.unwrap_err(),
    ] {
        assert_config(&error, "migrate()");
    }
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    log_in(&store, "al", &token_id(1)).await;
}

/// A second migration changes nothing.
#[tokio::test]
async fn migrating_again_changes_nothing() {
    let tables = MySql::start().await;
    let store = tables.store().await;
    log_in(&store, "al", &token_id(1)).await;
    store.migrate().await.unwrap();
    tables.store().await.migrate().await.unwrap();
    assert!(is_live(&store, "al", &token_id(1)).await);
    let slots = format!("SELECT COUNT(*) FROM {}", tables.table("slots"));
    assert_eq!(tables.server().number(&slots).await, 1024);
}

/// All instances of a service migrate when they start.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_migrate_at_once() {
    let tables = MySql::without_tables().await;
    let mut stores = Vec::new();
    for _ in 0..8 {
        stores.push(tables.store().await);
    }
    let migrated = at_once(8, |n| {
        let store = stores[n].clone();
        async move { store.migrate().await }
    });
    for migrated in migrated.await {
        migrated.unwrap();
    }
    log_in(&stores[0], "al", &token_id(1)).await;
    assert!(is_live(&stores[7], "al", &token_id(1)).await);
}

/// A migration that was cut short goes on.
#[tokio::test]
async fn half_a_migration_is_completed() {
    let tables = MySql::start().await;
    let server = tables.server();
    for statement in [
        format!("DROP TABLE {}", tables.table("users")),
        format!("DELETE FROM {} WHERE slot > 500", tables.table("slots")),
        format!("DELETE FROM {}", tables.table("schema")),
    ] {
        server.sql(&statement).await;
    }
    let store = tables.store().await;
    assert_config(&store.ping().await.unwrap_err(), "migrate()");
    store.migrate().await.unwrap();
    assert_eq!(store.get_user("al").await.unwrap(), None);
    log_in(&store, "al", &token_id(1)).await;
}

/// Tables of newer code are left alone; those of older code have to be brought up to date.
#[tokio::test]
async fn tables_of_another_version_are_refused() {
    let tables = MySql::start().await;
    let set = async |version| {
        let schema = tables.table("schema");
        let statement = format!("UPDATE {schema} SET version = {version}");
        tables.server().sql(&statement).await;
        tables.store().await
    };
    let store = set(99).await;
    assert_config(&store.migrate().await.unwrap_err(), "version 99");
    assert_config(&store.ping().await.unwrap_err(), "version 99");
    assert_config(&store.get_user("al").await.unwrap_err(), "version 99");
    let store = set(0).await;
    assert_config(&store.get_user("al").await.unwrap_err(), "migrate()");
    store.migrate().await.unwrap();
    assert_eq!(store.get_user("al").await.unwrap(), None);
}

/// Two prefixes are two stores.
#[tokio::test]
async fn prefixes_are_apart() {
    let tables = MySql::start().await;
    let prefix = tables.table("other_");
    let other = MySqlStore::builder(tables.server().url()).table_prefix(&*prefix);
    let other = other.connect().await.unwrap();
    assert_config(&other.ping().await.unwrap_err(), "migrate()");
    other.migrate().await.unwrap();
    log_in(&other, "al", &token_id(1)).await;
    assert!(!is_live(&tables.store().await, "al", &token_id(1)).await);
}

/// Transactions and row locks need InnoDB.
#[tokio::test]
async fn all_tables_are_of_the_right_kind() {
    let tables = MySql::start().await;
    let statement = format!(
        "SELECT ENGINE FROM information_schema.TABLES WHERE TABLE_NAME LIKE '{}%'",
        tables.table("").replace('_', r"\_")
    );
    let rows = tables.server().sql(&statement).await;
    let engines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(engines, ["InnoDB"; 5]);
}

fn assert_config(error: &Error, part: &str) {
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains(part), "{error:?}");
}
