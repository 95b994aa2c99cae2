//! The schema of the next version, too: it has another column.

use sqlx::Row;
use tower_bearer_session::{ErrorKind, SessionStore, TokenId, test_util::Backend as _};

use super::NextVersion;
use crate::stores::{Backend, HOUR, MySql, is_live, live_session, log_in, token_id};

impl NextVersion for MySql {
    async fn rewrite(&self, id: &TokenId, is_compatible: bool) {
        add_column(self).await;
        let sessions = self.table("sessions");
        let compatible_from = if is_compatible { 1 } else { 2 };
        let statement = format!(
            "UPDATE {sessions} SET compatible_from = {compatible_from}, next = 'a part of the next version' \
             WHERE user_id = 'al' AND token_id = ?"
        );
        let mut connection = self.server().connect().await.unwrap();
        let update = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id.to_bytes().to_vec());
        let done = update.execute(&mut connection).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }

    async fn unknown_part(&self, id: &TokenId) -> Vec<u8> {
        let sessions = self.table("sessions");
        let statement =
            format!("SELECT next FROM {sessions} WHERE user_id = 'al' AND token_id = ?");
        let mut connection = self.server().connect().await.unwrap();
        let select = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id.to_bytes().to_vec());
        select.fetch_one(&mut connection).await.unwrap().get(0)
    }
}

async fn add_column(tables: &MySql) {
    let sessions = tables.table("sessions");
    let column = "ADD COLUMN IF NOT EXISTS next VARBINARY(255) NULL";
    let statement = format!("ALTER TABLE {sessions} {column}");
    tables.server().sql(&statement).await;
}

/// Lets the next version migrate the tables.
async fn migrate_to_next(tables: &MySql, compatible_from: u32) {
    add_column(tables).await;
    let schema = tables.table("schema");
    let versions = format!("version = 2, compatible_from = {compatible_from}");
    let statement = format!("UPDATE {schema} SET {versions}");
    tables.server().sql(&statement).await;
}

/// This version stays ready, works, and can be started again, whose migration leaves the version as it is.
#[tokio::test]
async fn tables_of_a_compatible_version_work() {
    let tables = MySql::start().await;
    let before = tables.store().await;
    let session = log_in(&before, "al", &token_id(1)).await;
    migrate_to_next(&tables, 1).await;
    let restarted = tables.store().await;
    restarted.migrate().await.unwrap();
    for (store, id) in [(&before, token_id(2)), (&restarted, token_id(3))] {
        store.ping().await.unwrap();
        assert_eq!(live_session(store, "al", &token_id(1)).await, session);
        log_in(store, "al", &id).await;
        assert!(store.refresh("al", &id, 2 * HOUR).await.unwrap());
        assert!(store.delete("al", &id).await.unwrap());
    }
    let version = format!(
        "SELECT CAST(version * 100 + compatible_from AS SIGNED) FROM {}",
        tables.table("schema")
    );
    assert_eq!(tables.server().number(&version).await, 201);
}

/// This version says that it is too old, and is not ready.
#[tokio::test]
async fn tables_of_an_incompatible_version_are_a_matter_of_configuration() {
    let tables = MySql::start().await;
    let before = tables.store().await;
    log_in(&before, "al", &token_id(1)).await;
    migrate_to_next(&tables, 2).await;
    let restarted = tables.store().await;
    for error in [
        before.ping().await.unwrap_err(),
        restarted.ping().await.unwrap_err(),
        restarted.migrate().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("newer"), "{error}");
    }
    let version = format!(
        "SELECT CAST(version * 100 + compatible_from AS SIGNED) FROM {}",
        tables.table("schema")
    );
    assert_eq!(tables.server().number(&version).await, 202);
    // It goes on as long as the tables allow: sessions tell whether it can interpret them.
    assert!(is_live(&before, "al", &token_id(1)).await);
}
