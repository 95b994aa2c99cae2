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
/// The oldest version whose code works with tables of this version: it knows all that must not be ignored.
const COMPATIBLE_FROM: u32 = 1;
/// How long to wait for the migration of another instance, in seconds.
const MIGRATION_LOCK_TIMEOUT: u32 = 30;

/// The statements that make the tables of this version from none, from those of an older version, or from a part of
/// them; all can be repeated. `{prefix}` is the table prefix.
const STATEMENTS: &[&str] = &[
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
    "CREATE TABLE IF NOT EXISTS `{prefix}schema` (
        id TINYINT UNSIGNED NOT NULL,
        version INT UNSIGNED NOT NULL,
        compatible_from INT UNSIGNED NOT NULL,
        PRIMARY KEY (id)
    ) ENGINE = InnoDB",
    // Last, because it says that everything else is complete.
    "REPLACE INTO `{prefix}schema` (id, version, compatible_from) VALUES (1, {version}, {compatible_from})",
];

/// The version of the tables, which is 0 for none, and the oldest version whose code works with them.
struct Found {
    version: u32,
    compatible_from: u32,
}

/// Checks that this code works with the tables.
pub(super) async fn check(link: &mut Link, sql: &Sql) -> Result<(), Failure> {
    let rows = link.read(query(&sql.version)).await;
    match found(rows)?.version {
        0 => Err(not_migrated().into()),
        old if old < VERSION => Err(config_failure(format!(
            "the tables of the session store have version {old}, not {VERSION}: call `MySqlStore::migrate()`"
        ))),
        _ => Ok(()),
    }
}

/// Migrates the tables to the version of this code; one instance at a time.
pub(super) async fn migrate(
    connection: MySqlConnection,
    sql: &Sql,
    prefix: &str,
) -> Result<(), Failure> {
    let mut migration = Migration { connection, prefix };
    migration.lock().await?;
    let rows = query(&sql.version).fetch_all(&mut migration.connection);
    let version = found(rows.await.map_err(Failure::from))?.version;
    // A table may have been dropped since the version was recorded, and a migration after that cut short.
    let is_complete = version >= VERSION && migration.is_complete().await?;
    if !is_complete && version > VERSION {
        return Err(config_failure(format!(
            "a table or a slot of the session store is missing: call `MySqlStore::migrate()` of the newer version of \
             this crate that made the tables (version {version}; this one knows {VERSION})"
        )));
    }
    if !is_complete {
        migration.check_cutoffs().await?;
        for statement in STATEMENTS {
            migration.run(statement).await?;
        }
    }
    // Closing the connection releases the lock.
    migration.connection.close().await?;
    Ok(())
}

struct Migration<'a> {
    connection: MySqlConnection,
    prefix: &'a str,
}

impl Migration<'_> {
    /// Waits for the migrations of other instances, and locks them out until the connection closes.
    async fn lock(&mut self) -> Result<(), Failure> {
        let lock = sqlx::query(
            "SELECT GET_LOCK(CONCAT('tower-bearer-session/', MD5(CONCAT(DATABASE(), '/', ?))), ?)",
        );
        let lock = lock.bind(self.prefix).bind(MIGRATION_LOCK_TIMEOUT);
        let locked = lock.fetch_one(&mut self.connection).await?;
        if locked.try_get::<Option<i64>, _>(0)? != Some(1) {
            let message = "another instance has been migrating the tables for too long";
            return Err(Error::new(ErrorKind::Timeout, message).into());
        }
        // A busy table eventually becomes free for a moment.
        self.run("SET SESSION lock_wait_timeout = 60").await?;
        Ok(())
    }

    /// Whether all tables exist, and all slots.
    async fn is_complete(&mut self) -> Result<bool, Failure> {
        let tables = "SELECT 1 FROM `{prefix}sessions`, `{prefix}cutoffs`, `{prefix}users` LIMIT 0";
        let slots = format!("SELECT COUNT(*) FROM `{{prefix}}slots` WHERE slot < {SLOTS}");
        if self.read(tables).await?.is_none() {
            return Ok(false);
        }
        let slots = self.read(&slots).await?.unwrap_or_default();
        let count = slots.first().map(|row| row.try_get::<i64, _>(0));
        Ok(count.transpose()? == Some(i64::from(SLOTS)))
    }

    /// Fails if the table of cutoffs is missing while there are sessions: an empty one would revive those that have
    /// ended by a cutoff.
    async fn check_cutoffs(&mut self) -> Result<(), Failure> {
        let cutoffs = "SELECT 1 FROM `{prefix}cutoffs` LIMIT 0";
        let session = "SELECT 1 FROM `{prefix}sessions` LIMIT 1";
        if self.read(cutoffs).await?.is_some() {
            return Ok(());
        }
        if self.read(session).await?.unwrap_or_default().is_empty() {
            return Ok(());
        }
        let prefix = self.prefix;
        let message = format!(
            "the table `{prefix}cutoffs` is missing, without which sessions that have ended would be live again: \
             restore it, or delete all rows of `{prefix}sessions`, which logs out every user"
        );
        Err(config_failure(message))
    }

    /// The rows of a read; `None` if one of its tables is missing.
    async fn read(&mut self, statement: &str) -> Result<Option<Vec<MySqlRow>>, Failure> {
        match self.run(statement).await {
            Ok(rows) => Ok(Some(rows)),
            Err(error) if no_such_table(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn run(&mut self, statement: &str) -> Result<Vec<MySqlRow>, sqlx::Error> {
        let slots: Vec<_> = (0..SLOTS).map(|slot| format!("({slot})")).collect();
        let statement = statement
            .replace("{prefix}", self.prefix)
            .replace("{slots}", &slots.join(", "))
            .replace("{version}", &VERSION.to_string())
            .replace("{compatible_from}", &COMPATIBLE_FROM.to_string());
        let statement = sqlx::raw_sql(text(statement));
        statement.fetch_all(&mut self.connection).await
    }
}

/// Reads the version of the tables; an error if this code does not work with them.
fn found(rows: Result<Vec<MySqlRow>, Failure>) -> Result<Found, Failure> {
    let none = Found {
        version: 0,
        compatible_from: 0,
    };
    let found = match rows {
        Ok(rows) => match rows.first() {
            Some(row) => Found {
                version: row.try_get(1)?,
                compatible_from: row.try_get(2)?,
            },
            None => none,
        },
        Err(Failure::Driver(error)) if no_such_table(&error) => none,
        Err(failure) => return Err(failure),
    };
    if found.compatible_from > VERSION {
        let version = found.version;
        return Err(config_failure(format!(
            "the tables of the session store have version {version}, made by a newer version of this crate; this one \
             knows {VERSION}, and cannot work with them"
        )));
    }
    Ok(found)
}

fn config_failure(message: String) -> Failure {
    Error::new(ErrorKind::Config, message).into()
}
