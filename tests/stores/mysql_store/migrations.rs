use sqlx::Row;
use tower_bearer_session::{Error, ErrorKind, MySqlStore, SessionStore, test_util::Backend as _};

use super::{
    TABLES,
    many_sessions::fill,
    operations::{assert_all_succeed, operations},
};
use crate::stores::{Backend, MySql, at_once, is_live, log_in, token_id};

/// More sessions than one statement ends: a logout of all of them deletes some, and a cutoff ends the rest.
const MANY: usize = 600;

/// Without tables every operation fails and names the remedy. After the migration every operation succeeds.
#[tokio::test]
async fn without_tables_the_error_says_what_to_do() {
    let tables = MySql::without_tables().await;
    let store = tables.store().await;
    for (operation, outcome) in operations(&store).await {
        let error = outcome.expect_err(operation);
        assert_config(&error, "migrate()");
    }
    store.migrate().await.unwrap();
    assert_all_succeed(&store).await;
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

/// A first migration that was cut short is completed by the next one.
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
    assert_complete(&tables, &store).await;
}

/// A repeated migration that was cut short is completed by the next one, although the version was recorded before.
#[tokio::test]
async fn half_a_repeated_migration_is_completed() {
    let tables = MySql::start().await;
    let store = tables.store().await;
    let (server, slots) = (tables.server(), tables.table("slots"));
    let user = "SELECT seq FROM seq_1_to_100000 WHERE CRC32(CONCAT('al', seq)) % 1024 = 7 LIMIT 1";
    let user: u64 = server.sql(user).await[0].get(0);
    for half in [
        format!("DELETE FROM {slots}"),
        format!("DELETE FROM {slots} WHERE slot < 500"),
        format!("UPDATE {slots} SET slot = slot + 1024 WHERE slot = 7"),
    ] {
        server.sql(&half).await;
        let error = store.delete_all(&format!("al{user}"), None).await;
        assert_config(&error.unwrap_err(), "migrate()");
        store.migrate().await.unwrap();
        assert_complete(&tables, &store).await;
    }
}

/// Instances that migrate at once create a dropped table again, whichever it is. The sessions remain, unless their own
/// table was dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_dropped_table_is_created_again() {
    let tables = MySql::start().await;
    let stores = [tables.store().await, tables.store().await];
    for table in TABLES {
        // Without the cutoffs, there must be no sessions.
        let has_session = table != "cutoffs";
        if has_session {
            log_in(&stores[0], "bo", &token_id(1)).await;
        }
        let drop = format!("DROP TABLE {}", tables.table(table));
        tables.server().sql(&drop).await;
        let (first, second) = tokio::join!(stores[0].migrate(), stores[1].migrate());
        first.expect(table);
        second.expect(table);
        let is_live = is_live(&stores[1], "bo", &token_id(1)).await;
        assert_eq!(is_live, has_session && table != "sessions", "{table}");
        assert_complete(&tables, &stores[0]).await;
        let empty = format!("DELETE FROM {}", tables.table("sessions"));
        tables.server().sql(&empty).await;
    }
}

/// The cutoffs may be the only record that sessions have ended. Therefore no migration creates an empty table of
/// cutoffs while there are sessions, whatever the recorded version is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_migration_without_the_cutoffs_does_not_revive_ended_sessions() {
    let tables = MySql::start().await;
    let server = tables.server();
    let table = |name| tables.table(name);
    let connect = async || {
        let builder = tables.builder().purge_interval(None);
        builder.connect().await.unwrap()
    };
    let stores = [connect().await, connect().await];
    let [cutoffs, sessions, schema] = ["cutoffs", "sessions", "schema"].map(table);
    server.sql(&fill(&sessions, "al", MANY)).await;
    assert_eq!(stores[0].delete_all("al", None).await.unwrap(), MANY as u64);
    let count = format!("SELECT COUNT(*) FROM {sessions}");
    assert!(server.number(&count).await > 0);
    let assert_ended = async |store: &MySqlStore| {
        for n in 1..=MANY as u128 {
            let checked = store.check("al", &token_id(n)).await;
            assert!(!matches!(checked, Ok(Some(_))), "the session {n} is live");
        }
    };
    for version in [
        format!("SELECT version FROM {schema}"),
        format!("DELETE FROM {schema}"),
        format!("DROP TABLE {schema}"),
    ] {
        server.sql(&version).await;
        let rename = format!("RENAME TABLE {cutoffs} TO {cutoffs}_gone");
        server.sql(&rename).await;
        let (first, second) = tokio::join!(stores[0].migrate(), stores[1].migrate());
        // Before the errors are checked, because this is the rule that they protect.
        assert_ended(&stores[0]).await;
        for refused in [first, second] {
            assert_config(&refused.unwrap_err(), "cutoffs");
        }
        let restore = format!("RENAME TABLE {cutoffs}_gone TO {cutoffs}");
        server.sql(&restore).await;
        stores[0].migrate().await.unwrap();
        assert_ended(&stores[0]).await;
        assert!(server.number(&count).await > 0);
    }
    server.sql(&format!("DROP TABLE {cutoffs}")).await;
    assert_config(&stores[0].migrate().await.unwrap_err(), "cutoffs");
    server.sql(&format!("DELETE FROM {sessions}")).await;
    stores[0].migrate().await.unwrap();
    assert_ended(&stores[0]).await;
    assert_complete(&tables, &stores[0]).await;
}

/// The version is recorded once, when everything else is complete, and no repeated migration lowers it on the way.
#[tokio::test]
async fn the_version_is_recorded_once_and_last() {
    let tables = MySql::start().await;
    let server = tables.server();
    let [schema, users, slots] = ["schema", "users", "slots"].map(|name| tables.table(name));
    let (trigger, writes) = (tables.table("recorded"), tables.table("writes"));
    server
        .sql(&format!("CREATE TABLE {writes} (version INT, slots INT)"))
        .await;
    server
        .sql(&format!(
            "CREATE TRIGGER {trigger} BEFORE INSERT ON {schema} FOR EACH ROW \
             INSERT INTO {writes} VALUES (NEW.version, (SELECT COUNT(*) FROM {slots}))"
        ))
        .await;
    let store = tables.store().await;
    let version = format!("SELECT CAST(version AS SIGNED) FROM {schema}");
    let before = server.number(&version).await;
    store.migrate().await.unwrap();
    server.sql(&format!("DROP TABLE {users}")).await;
    server.sql(&format!("DELETE FROM {slots}")).await;
    store.migrate().await.unwrap();
    let written = server.sql(&format!("SELECT * FROM {writes}")).await;
    let written: Vec<(i64, i64)> = written
        .iter()
        .map(|row| (row.get::<i32, _>(0).into(), row.get::<i32, _>(1).into()))
        .collect();
    assert_eq!(written, [(before, 1024)]);
}

/// Tables of newer code are left alone; those of older code have to be brought up to date.
#[tokio::test]
async fn tables_of_another_version_are_refused() {
    let tables = MySql::start().await;
    let set = async |version| {
        let schema = tables.table("schema");
        let statement =
            format!("UPDATE {schema} SET version = {version}, compatible_from = {version}");
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

/// Every table has its rows, and every operation succeeds.
async fn assert_complete(tables: &MySql, store: &MySqlStore) {
    let slots = format!(
        "SELECT COUNT(*) FROM {} WHERE slot < 1024",
        tables.table("slots")
    );
    assert_eq!(tables.server().number(&slots).await, 1024);
    assert_all_succeed(store).await;
}

fn assert_config(error: &Error, part: &str) {
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains(part), "{error:?}");
}
