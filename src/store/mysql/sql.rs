//! The text of every statement.
//!
//! | table | content |
//! |---|---|
//! | `<prefix>sessions` | the sessions, by user id and the 16 bytes of the token id |
//! | `<prefix>users` | the cached users |
//! | `<prefix>slots` | rows to lock: every login and every logout of all sessions locks the one of its user |
//! | `<prefix>schema` | one row with the version of the schema |
//!
//! Times are milliseconds since the Unix epoch. The server's clock is read in two ways: [`BEGUN`] is the time at which
//! the statement began, so that what a read then finds was live at that time; [`REACHED`] is the time at
//! which a statement that may have waited for a row gets to it, so that it revives nothing that expired meanwhile.

use std::{fmt::Write, sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// Rows in the table of slots; users share them. A part of the schema.
pub(super) const SLOTS: u16 = 1024;
/// How many sessions a page of a list has.
pub(super) const PAGE: usize = 512;
/// How many expired rows are removed in one transaction.
pub(super) const BATCH: usize = 50;

/// After how many seconds without use the server closes a connection: more than we let pass until we do.
const UNUSED: u32 = 180;
/// Whatever the time zone of the session is.
const BEGUN: &str =
    "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(3)) DIV 1000)";
/// There is no such function for UTC, which is the time zone of our sessions.
const REACHED: &str = "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', SYSDATE(3)) DIV 1000)";
/// Of a session, in the order in which `record` reads them.
const COLUMNS: &str =
    "s.token_id, s.created_at, s.refreshed_at, s.expires_at, s.ends_at, s.metadata";

/// The statements of a store with one table prefix.
pub(super) struct Sql {
    /// What a connection begins with. A statement that waits for a lock does not outlive its operation by much.
    pub(super) setup: SqlStr,
    /// In a transaction the server ends a connection soon that says nothing, and undoes the transaction: a client that is
    /// cut off must not keep what it has locked.
    pub(super) begin: SqlStr,
    pub(super) commit: SqlStr,
    pub(super) version: SqlStr,
    pub(super) lock: SqlStr,
    pub(super) check: SqlStr,
    /// The time, and the session if it is live; locks it.
    pub(super) live_one: SqlStr,
    /// The time, and every live session of the user; locks them.
    pub(super) live_all: SqlStr,
    pub(super) insert: SqlStr,
    sessions: String,
    pub(super) update: SqlStr,
    pub(super) update_version: SqlStr,
    pub(super) delete: SqlStr,
    pub(super) delete_all: SqlStr,
    pub(super) delete_others: SqlStr,
    pub(super) list: SqlStr,
    pub(super) get_user: SqlStr,
    pub(super) put_user: SqlStr,
    pub(super) put_user_over_expired: SqlStr,
    pub(super) put_new_user: SqlStr,
    pub(super) put_user_over: SqlStr,
    pub(super) dead_sessions: SqlStr,
    pub(super) dead_users: SqlStr,
    pub(super) remove_session: SqlStr,
    pub(super) remove_user: SqlStr,
}

impl Sql {
    /// `prefix` is a part of an identifier, `deadline` that of every operation.
    pub(super) fn new(prefix: &str, deadline: Duration) -> Self {
        // More than an operation takes, so that nothing ends that somebody still waits for.
        let patience = deadline.as_secs() + 1;
        let sessions = format!("`{prefix}sessions`");
        let users = format!("`{prefix}users`");
        // Never by the other index, on which a locking read would meet the rows of other users.
        let by_key = format!("{sessions} AS s FORCE INDEX (PRIMARY)");
        let mine = "s.user_id = ? AND s.token_id = ?";
        let live = format!(
            "SELECT clock.now, {COLUMNS} FROM (SELECT {BEGUN} AS now) AS clock LEFT JOIN {by_key} ON"
        );
        let dead = format!(
            "WHERE expires_at <= {BEGUN} ORDER BY expires_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
        );
        // Assignments are done from left to right.
        let update = format!(
            "UPDATE {sessions} SET refreshed_at = {REACHED}, \
             expires_at = LEAST(refreshed_at + ?, IFNULL(ends_at, refreshed_at + ?)) \
             WHERE user_id = ? AND token_id = ? AND expires_at > {REACHED}"
        );
        Self {
            setup: text(format!(
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                 SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
                 autocommit = 1, wait_timeout = {UNUSED}, \
                 innodb_lock_wait_timeout = {patience}, lock_wait_timeout = {patience}"
            )),
            begin: text(format!(
                "SET SESSION wait_timeout = {patience}; START TRANSACTION"
            )),
            commit: text(format!("COMMIT; SET SESSION wait_timeout = {UNUSED}")),
            version: text(format!("SELECT version FROM `{prefix}schema`")),
            lock: text(format!(
                "SELECT slot FROM `{prefix}slots` WHERE slot = CRC32(?) % {SLOTS} FOR UPDATE"
            )),
            check: text(format!(
                "SELECT {BEGUN}, {COLUMNS}, u.value FROM {by_key} \
                 LEFT JOIN {users} AS u ON u.user_id = s.user_id AND u.expires_at > {BEGUN} \
                 WHERE {mine} AND s.expires_at > {BEGUN}"
            )),
            live_one: text(format!(
                "{live} {mine} AND s.expires_at > clock.now FOR UPDATE"
            )),
            live_all: text(format!(
                "{live} s.user_id = ? AND s.expires_at > clock.now FOR UPDATE"
            )),
            // What is there already has expired.
            insert: text(format!(
                "INSERT INTO {sessions} \
                 (user_id, token_id, created_at, refreshed_at, expires_at, ends_at, metadata) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE \
                 created_at = VALUES(created_at), refreshed_at = VALUES(refreshed_at), \
                 expires_at = VALUES(expires_at), ends_at = VALUES(ends_at), metadata = VALUES(metadata)"
            )),
            update_version: text(format!("{update} AND refreshed_at = ? AND expires_at = ?")),
            update: text(update),
            delete: text(format!(
                "DELETE FROM {sessions} WHERE user_id = ? AND token_id = ? AND expires_at > {REACHED}"
            )),
            delete_all: text(format!("DELETE FROM {sessions} WHERE user_id = ?")),
            delete_others: text(format!(
                "DELETE FROM {sessions} WHERE user_id = ? AND (token_id <> ? OR expires_at <= {REACHED})"
            )),
            list: text(format!(
                "SELECT {BEGUN}, {COLUMNS} FROM {by_key} \
                 WHERE s.user_id = ? AND s.token_id >= ? AND s.expires_at > {BEGUN} \
                 ORDER BY s.token_id LIMIT {PAGE}"
            )),
            get_user: text(format!(
                "SELECT value FROM {users} WHERE user_id = ? AND expires_at > {BEGUN}"
            )),
            put_user: text(format!(
                "INSERT INTO {users} (user_id, value, expires_at) VALUES (?, ?, {REACHED} + ?) \
                 ON DUPLICATE KEY UPDATE value = VALUES(value), expires_at = VALUES(expires_at)"
            )),
            put_user_over_expired: text(format!(
                "UPDATE {users} SET value = ?, expires_at = {REACHED} + ? \
                 WHERE user_id = ? AND expires_at <= {REACHED}"
            )),
            put_new_user: text(format!(
                "INSERT INTO {users} (user_id, value, expires_at) VALUES (?, ?, {REACHED} + ?)"
            )),
            put_user_over: text(format!(
                "UPDATE {users} SET value = ?, expires_at = {REACHED} + ? \
                 WHERE user_id = ? AND value = ? AND expires_at > {REACHED}"
            )),
            dead_sessions: text(format!("SELECT user_id, token_id FROM {sessions} {dead}")),
            dead_users: text(format!("SELECT user_id FROM {users} {dead}")),
            remove_session: text(format!(
                "DELETE FROM {sessions} WHERE user_id = ? AND token_id = ?"
            )),
            remove_user: text(format!("DELETE FROM {users} WHERE user_id = ?")),
            sessions,
        }
    }

    /// Ends these sessions of a user, live or not.
    pub(super) fn evict(&self, user_id: &[u8], ids: &[[u8; 16]]) -> SqlStr {
        let (sessions, user_id) = (&self.sessions, literal(user_id));
        let ids: Vec<_> = ids.iter().map(|id| literal(id)).collect();
        let ids = ids.join(", ");
        text(format!(
            "DELETE FROM {sessions} WHERE user_id = {user_id} AND token_id IN ({ids})"
        ))
    }
}

/// Bytes in a statement, whatever they are.
fn literal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(3 + 2 * bytes.len());
    text.push_str("X'");
    for byte in bytes {
        let _ = write!(text, "{byte:02X}");
    }
    text.push('\'');
    text
}

/// A text that is cheap to clone; nothing but the table prefix, which is checked, is not ours in it.
pub(super) fn text(text: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(text)).into_sql_str()
}
