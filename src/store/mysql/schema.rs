//! The tables and their migrations.

use sqlx::{Connection, MySqlConnection, Row, mysql::MySqlRow};

use super::{
    errors::{Failure, no_such_table, not_migrated},
    pool::Link,
    sql::{SLOTS, Sql, text},
    statement::query,
};
use crate::{Error, ErrorKind};

/// The version of the schema that this code works with.
const VERSION: u32 = 1;
/// How long to wait for the migration of another instance, in seconds.
const MIGRATION_LOCK_TIMEOUT: u32 = 30;

/// The statements that migrate to each version from the previous one; all can be repeated. `{prefix}` is the table
/// prefix.
const MIGRATIONS: [&[&str]; VERSION as usize] = [&[
    "CREATE TABLE IF NOT EXISTS `{prefix}sessions` (
        user_id VARBINARY(255) NOT NULL,
        token_id BINARY(16) NOT NULL,
        created_at BIGINT NOT NULL,
        refreshed_at BIGINT NOT NULL,
        expires_at BIGINT NOT NULL,
        ends_at BIGINT NULL,
        metadata LONGBLOB NULL,
        generation BIGINT NOT NULL DEFAULT 0,
        authenticated_at BIGINT NULL,
        current_token BINARY(16) NULL,
        replaced_tokens VARBINARY(352) NULL,
        compatible_from TINYINT UNSIGNED NOT NULL DEFAULT 1,
        PRIMARY KEY (user_id, token_id),
        KEY expires_at (expires_at)
    ) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS `{prefix}cutoffs` (
        user_id VARBINARY(255) NOT NULL,
        generation BIGINT NOT NULL,
        PRIMARY KEY (user_id)
    ) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS `{prefix}users` (
        user_id VARBINARY(255) NOT NULL,
        value LONGBLOB NOT NULL,
        expires_at BIGINT NOT NULL,
        PRIMARY KEY (user_id),
        KEY expires_at (expires_at)
    ) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS `{prefix}slots` (
        slot SMALLINT UNSIGNED NOT NULL,
        PRIMARY KEY (slot)
    ) ENGINE = InnoDB",
    "INSERT IGNORE INTO `{prefix}slots` (slot) VALUES {slots}",
]];

const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS `{prefix}schema` (
        id TINYINT UNSIGNED NOT NULL,
        version INT UNSIGNED NOT NULL,
        PRIMARY KEY (id)
    ) ENGINE = InnoDB";

/// Checks that the tables are of the version that this code works with.
pub(super) async fn check(link: &mut Link, sql: &Sql) -> Result<(), Failure> {
    let rows = link.read(query(&sql.version)).await;
    match found(rows)? {
        Some(VERSION) => Ok(()),
        None => Err(not_migrated().into()),
        Some(old) if old < VERSION => {
            let message = format!(
                "the tables of the session store have version {old}, not {VERSION}: call `MySqlStore::migrate()`"
            );
            Err(Error::new(ErrorKind::Config, message).into())
        }
        Some(newer) => Err(too_new(newer)),
    }
}

/// Migrates the tables to the version of this code; one instance at a time.
pub(super) async fn migrate(
    mut connection: MySqlConnection,
    sql: &Sql,
    prefix: &str,
) -> Result<(), Failure> {
    let lock = sqlx::query(
        "SELECT GET_LOCK(CONCAT('tower-bearer-session/', MD5(CONCAT(DATABASE(), '/', ?))), ?)",
    );
    let locked = lock
        .bind(prefix)
        .bind(MIGRATION_LOCK_TIMEOUT)
        .fetch_all(&mut connection)
        .await?;
    let locked = locked.first().map(|row| row.try_get::<Option<i64>, _>(0));
    if locked.transpose()?.flatten() != Some(1) {
        let message = "another instance has been migrating the tables for too long";
        return Err(Error::new(ErrorKind::Timeout, message).into());
    }
    // A busy table eventually becomes free for a moment.
    execute(
        &mut connection,
        "SET SESSION lock_wait_timeout = 60",
        prefix,
    )
    .await?;
    let rows = query(&sql.version).fetch_all(&mut connection).await;
    let mut version = found(rows.map_err(Failure::from))?.unwrap_or(0);
    if version > VERSION {
        return Err(too_new(version));
    }
    if version > 0 && !has_tables(&mut connection, sql).await? {
        // A table was dropped since then.
        version = 0;
    }
    execute(&mut connection, VERSION_TABLE, prefix).await?;
    for (done, migration) in (0..).zip(MIGRATIONS) {
        if done < version {
            continue;
        }
        for statement in migration {
            execute(&mut connection, statement, prefix).await?;
        }
        let noted = format!(
            "REPLACE INTO `{{prefix}}schema` (id, version) VALUES (1, {})",
            done + 1
        );
        execute(&mut connection, &noted, prefix).await?;
    }
    // Closing the connection releases the lock.
    connection.close().await?;
    Ok(())
}

async fn has_tables(connection: &mut MySqlConnection, sql: &Sql) -> Result<bool, Failure> {
    match query(&sql.has_tables).fetch_all(connection).await {
        Ok(_) => Ok(true),
        Err(error) if no_such_table(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The version of the tables; `None` if there are no tables.
fn found(rows: Result<Vec<MySqlRow>, Failure>) -> Result<Option<u32>, Failure> {
    match rows {
        Ok(rows) => {
            let version = rows.first().map(|row| row.try_get(1)).transpose();
            Ok(version?)
        }
        Err(Failure::Driver(error)) if no_such_table(&error) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn execute(
    connection: &mut MySqlConnection,
    statement: &str,
    prefix: &str,
) -> Result<(), Failure> {
    let slots: Vec<_> = (0..SLOTS).map(|slot| format!("({slot})")).collect();
    let statement = statement
        .replace("{prefix}", prefix)
        .replace("{slots}", &slots.join(", "));
    sqlx::raw_sql(text(statement)).execute(connection).await?;
    Ok(())
}

fn too_new(version: u32) -> Failure {
    let message = format!(
        "the tables of the session store have version {version}, made by newer code; this code knows {VERSION}"
    );
    Error::new(ErrorKind::Config, message).into()
}
