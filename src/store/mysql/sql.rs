//! The SQL statements.
//!
//! | table | content |
//! |---|---|
//! | `<prefix>sessions` | the sessions, by user id and the 16 bytes of the token id |
//! | `<prefix>cutoffs` | the cutoffs of users with very many sessions: those of a lower generation have ended |
//! | `<prefix>users` | the cached users |
//! | `<prefix>slots` | lock rows: every login and every logout of all sessions locks the slot of its user |
//! | `<prefix>schema` | one row with the version of the schema |
//!
//! Times are milliseconds since the Unix epoch. The server's clock is read in two ways: [`BEGUN`] is the time at which
//! the statement began, so the sessions that a read finds were live at that time; [`REACHED`] is the time at which a
//! statement that may have waited for a row reaches it, so it does not revive a session that expired during the wait.
//!
//! A session is live if it has not expired and its generation is not below the cutoff of its user. See `cutoffs`.

use std::{sync::Arc, time::Duration};

use crc::{CRC_32_ISO_HDLC, Crc};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::store::Rotation;

/// The number of slots, which users share. A part of the schema.
pub(super) const SLOTS: u16 = 1024;
/// That of MySQL's `CRC32`.
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// The slot of a user.
pub(super) fn slot_of(user_id: &str) -> u16 {
    (CRC.checksum(user_id.as_bytes()) % u32::from(SLOTS)) as u16
}
/// The version of this reader: it can interpret the sessions whose `compatible_from` is not higher.
pub(super) const READER: u8 = 1;
/// The length of the column `replaced_tokens`: as many token ids, and ends of their grace (6 bytes, big-endian), as a
/// session keeps.
pub(super) const REPLACED_LEN: usize = 22 * Rotation::MAX_REPLACED;
/// The number of sessions in a page of a list.
pub(super) const PAGE: usize = 512;
/// The number of rows that are read for a page of users.
pub(super) const USERS: usize = 1000;
/// The maximum number of expired rows that one transaction removes.
pub(super) const BATCH: usize = 50;
/// The maximum number of a user's sessions that one statement ends.
pub(super) const MANY: usize = 512;

/// The server's idle timeout of a connection, in seconds: longer than the pool's.
const UNUSED: u32 = 30;
/// The time at which the statement began, independent of the connection's time zone.
const BEGUN: &str =
    "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(3)) DIV 1000)";
/// The time at which the statement reaches a row. Our connections use UTC, because `SYSDATE` has no UTC variant.
const REACHED: &str = "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', SYSDATE(3)) DIV 1000)";
/// Whether the server is read-only. Servers report the setting as a number or as a word; readers in Amazon Aurora set
/// `innodb_read_only`.
macro_rules! read_only {
    () => {
        "(CONCAT(@@global.read_only) NOT IN ('0', 'OFF') OR @@global.innodb_read_only)"
    };
}
/// True, or an error on a read-only server, even without rows: an unsigned number is out of range. A statement has no
/// other way to raise an error, and a column would be missing without rows.
const WRITABLE: &str = concat!("CAST(NOT ", read_only!(), " AS UNSIGNED) - 1 >= 0");
/// The columns of a session, in the order in which `record` reads them.
pub(super) const COLUMNS: &str = "s.token_id, s.created_at, s.refreshed_at, s.expires_at, s.ends_at, s.metadata, \
    s.authenticated_at, s.current_token, s.replaced_tokens, s.compatible_from";
/// The number of the first column after those of a session, whose first follows the time.
pub(super) const AFTER: usize = 11;

/// At least 0 if the server evaluates this by `not_after` and accepts writes; otherwise an error that rolls back the
/// statement.
fn in_time(not_after: &str) -> String {
    let read_only = read_only!();
    format!("CAST(IF({read_only}, 0, {not_after}) AS UNSIGNED) - {REACHED}")
}

/// The statements of a store with one table prefix.
pub(super) struct Sql {
    /// The setup of a connection. Its lock timeout keeps a waiting statement from outliving its operation by much.
    pub(super) setup: SqlStr,
    /// Begins a transaction with a short idle timeout, after which the server rolls it back: a disconnected client must
    /// not keep its locks.
    pub(super) begin: SqlStr,
    pub(super) version: SqlStr,
    pub(super) lock: SqlStr,
    pub(super) check: SqlStr,
    /// Like `check`, without the cached user.
    pub(super) session: SqlStr,
    /// The session if it is live, with a lock, and the cutoff.
    pub(super) live: SqlStr,
    /// Like `live`, with the number of live sessions of the user.
    pub(super) live_of: SqlStr,
    pub(super) victims: [SqlStr; 2],
    pub(super) keepers: [SqlStr; 2],
    pub(super) insert: SqlStr,
    pub(super) sessions: String,
    pub(super) by_key: String,
    pub(super) update: SqlStr,
    pub(super) delete: SqlStr,
    pub(super) delete_all: SqlStr,
    pub(super) delete_others: SqlStr,
    pub(super) cutoff: SqlStr,
    pub(super) generations: SqlStr,
    pub(super) raise_cutoff: SqlStr,
    pub(super) keep: SqlStr,
    pub(super) list: SqlStr,
    pub(super) list_users: SqlStr,
    pub(super) get_user: SqlStr,
    pub(super) put_user: SqlStr,
    pub(super) put_user_over_expired: SqlStr,
    pub(super) put_new_user: SqlStr,
    pub(super) put_user_over: SqlStr,
    pub(super) dead_sessions: SqlStr,
    pub(super) dead_users: SqlStr,
    pub(super) remove_session: SqlStr,
    pub(super) remove_user: SqlStr,
    pub(super) any_cutoff: SqlStr,
    pub(super) below_cutoff: SqlStr,
    pub(super) remove_cutoff: SqlStr,
}

impl Sql {
    /// Builds the statements. `prefix` is a part of an identifier, `deadline` is the deadline of an operation.
    pub(super) fn new(prefix: &str, deadline: Duration) -> Self {
        // Longer than an operation, so that the server does not cancel a statement whose caller still waits.
        let patience = deadline.as_secs() + 1;
        let [sessions, users, cutoffs, slots, schema] =
            ["sessions", "users", "cutoffs", "slots", "schema"]
                .map(|table| format!("`{prefix}{table}`"));
        // Never by the other index, where a locking read would scan the rows of other users.
        let by_key = format!("{sessions} AS s FORCE INDEX (PRIMARY)");
        let mine = "s.user_id = ? AND s.token_id = ?";
        let of_user = format!("LEFT JOIN {cutoffs} AS c ON c.user_id = s.user_id");
        let is_live = format!(
            "s.expires_at > {BEGUN} AND s.generation >= IFNULL(c.generation, 0) AND {WRITABLE}"
        );
        let live = |count: &str| {
            text(format!(
                "SELECT clock.now, {COLUMNS}, clock.cutoff{count} FROM (SELECT {BEGUN} AS now, \
                 IFNULL((SELECT c.generation FROM {cutoffs} AS c WHERE c.user_id = ?), 0) AS cutoff) AS clock \
                 LEFT JOIN {by_key} ON {mine} \
                 AND s.expires_at > clock.now AND s.generation >= clock.cutoff \
                 WHERE {WRITABLE} FOR UPDATE"
            ))
        };
        let count = format!(
            ", (SELECT COUNT(*) FROM {sessions} AS l FORCE INDEX (PRIMARY) \
             WHERE l.user_id = ? AND l.expires_at > clock.now AND l.generation >= clock.cutoff)"
        );
        let in_order = |column: &str, order: &str| {
            text(format!(
                "SELECT s.token_id, s.{column} FROM {by_key} \
                 WHERE s.user_id = ? AND s.expires_at > ? AND s.generation >= ? \
                 ORDER BY s.{column} {order}, s.token_id {order} LIMIT ?"
            ))
        };
        let dead = format!(
            "WHERE expires_at <= {BEGUN} ORDER BY expires_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
        );
        let (read_only, in_time) = (read_only!(), in_time("?"));
        // The generation of a kept session only grows, so it is also live by a cutoff that was read earlier.
        let not_ended = format!(
            "expires_at > {REACHED} AND generation >= \
             IFNULL((SELECT c.generation FROM {cutoffs} AS c WHERE c.user_id = ?), 0)"
        );
        // Assignments are evaluated from left to right, and the clock each time: so later ones take its time from the
        // column that has it. The driver returns the last insert id, and so the expiry.
        let update = format!(
            "UPDATE {sessions} SET refreshed_at = IF(? IS NULL, refreshed_at, {REACHED}), \
             expires_at = LAST_INSERT_ID(IF(? IS NULL, expires_at, \
             LEAST(refreshed_at + ?, IFNULL(ends_at, refreshed_at + ?)))), \
             metadata = IF(?, ?, metadata), \
             authenticated_at = IF(?, IF(? IS NULL, {REACHED}, refreshed_at), authenticated_at), \
             replaced_tokens = IF(? IS NULL, replaced_tokens, LEFT(CONCAT(IFNULL(current_token, token_id), \
             UNHEX(LPAD(HEX(IF(? IS NULL, IF(?, authenticated_at, {REACHED}), refreshed_at) + ?), 12, '0')), \
             IFNULL(replaced_tokens, '')), {REPLACED_LEN})), \
             current_token = IFNULL(?, current_token) \
             WHERE user_id = ? AND token_id = ? AND {not_ended} AND {WRITABLE} AND {in_time} >= 0 \
             AND compatible_from <= {READER} \
             AND IFNULL(? = IFNULL(current_token, token_id), TRUE) \
             AND IFNULL(? <> IFNULL(current_token, token_id), TRUE) \
             AND IFNULL(refreshed_at = ? AND expires_at = ?, TRUE) \
             AND IFNULL(IFNULL(metadata, '') = ?, TRUE)"
        );
        // An expired session is not kept.
        let others = format!("(token_id <> ? OR expires_at <= {REACHED})");
        Self {
            setup: text(format!(
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                 SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
                 autocommit = 1, wait_timeout = {UNUSED}, \
                 innodb_lock_wait_timeout = {patience}, lock_wait_timeout = {patience}; \
                 SELECT {REACHED} AS now, {read_only} AS read_only, VERSION() AS version, IF(SYSDATE(6) = NOW(6), \
                 SLEEP(0.002) + (SYSDATE(6) = NOW(6)), 0) AS sysdate_is_now"
            )),
            begin: text(format!(
                "SET SESSION wait_timeout = {patience}; START TRANSACTION"
            )),
            version: text(format!(
                "SELECT {BEGUN}, version, compatible_from FROM {schema} WHERE {WRITABLE}"
            )),
            lock: text(format!(
                "SELECT slot FROM {slots} WHERE slot = ? FOR UPDATE"
            )),
            check: text(format!(
                "SELECT {BEGUN}, {COLUMNS}, u.value FROM {by_key} {of_user} \
                 LEFT JOIN {users} AS u ON u.user_id = s.user_id AND u.expires_at > {BEGUN} \
                 WHERE {mine} AND {is_live}"
            )),
            session: text(format!(
                "SELECT {BEGUN}, {COLUMNS}, NULL FROM {by_key} {of_user} WHERE {mine} AND {is_live}"
            )),
            live: live(""),
            live_of: live(&count),
            victims: ["created_at", "refreshed_at"].map(|column| in_order(column, "ASC")),
            keepers: ["created_at", "refreshed_at"].map(|column| in_order(column, "DESC")),
            // An existing row has expired, or has ended together with many others.
            insert: text(format!(
                "INSERT INTO {sessions} \
                 (user_id, token_id, created_at, refreshed_at, expires_at, ends_at, metadata, generation, \
                 compatible_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?, {READER}) ON DUPLICATE KEY UPDATE \
                 created_at = VALUES(created_at), refreshed_at = VALUES(refreshed_at), \
                 expires_at = VALUES(expires_at), ends_at = VALUES(ends_at), \
                 metadata = VALUES(metadata), generation = VALUES(generation), \
                 authenticated_at = NULL, current_token = NULL, replaced_tokens = NULL, compatible_from = {READER}"
            )),
            update: text(update),
            delete: text(format!(
                "DELETE FROM {sessions} WHERE user_id = ? AND token_id = ? \
                 AND {not_ended} AND {WRITABLE} AND {in_time} >= 0"
            )),
            delete_all: text(format!(
                "DELETE FROM {sessions} WHERE user_id = ? LIMIT {MANY}"
            )),
            delete_others: text(format!(
                "DELETE FROM {sessions} WHERE user_id = ? AND {others} LIMIT {MANY}"
            )),
            cutoff: text(format!(
                "SELECT generation FROM {cutoffs} WHERE user_id = ?"
            )),
            generations: text(format!(
                "SELECT COUNT(IF(s.generation >= ?, 1, NULL)), IFNULL(MAX(s.generation), 0) \
                 FROM {by_key} WHERE s.user_id = ?"
            )),
            raise_cutoff: text(format!(
                "INSERT INTO {cutoffs} (user_id, generation) VALUES (?, ?) \
                 ON DUPLICATE KEY UPDATE generation = VALUES(generation)"
            )),
            keep: text(format!(
                "UPDATE {sessions} SET generation = ? WHERE user_id = ? AND token_id = ? \
                 AND expires_at > {REACHED} AND generation >= ?"
            )),
            list: text(format!(
                "SELECT {BEGUN}, {COLUMNS} FROM {by_key} {of_user} \
                 WHERE s.user_id = ? AND s.token_id >= ? AND {is_live} \
                 ORDER BY s.token_id LIMIT {PAGE}"
            )),
            // The number of rows is limited before users are told apart, so that a user with very many costs no more.
            list_users: text(format!(
                "SELECT {BEGUN}, page.user_id, COUNT(*) FROM (SELECT s.user_id FROM {by_key} \
                 WHERE s.user_id > ? AND {WRITABLE} ORDER BY s.user_id LIMIT {USERS}) AS page \
                 GROUP BY page.user_id"
            )),
            get_user: text(format!(
                "SELECT {BEGUN}, value FROM {users} \
                 WHERE user_id = ? AND expires_at > {BEGUN} AND {WRITABLE}"
            )),
            put_user: text(format!(
                "INSERT INTO {users} (user_id, value, expires_at) \
                 VALUES (?, ?, {REACHED} + ? + LEAST(0, {in_time})) ON DUPLICATE KEY UPDATE \
                 value = VALUES(value), expires_at = VALUES(expires_at) + LEAST(0, {in_time})"
            )),
            put_user_over_expired: text(format!(
                "UPDATE {users} SET value = ?, expires_at = {REACHED} + ? \
                 WHERE user_id = ? AND expires_at <= {REACHED} AND {WRITABLE} AND {in_time} >= 0"
            )),
            put_new_user: text(format!(
                "INSERT INTO {users} (user_id, value, expires_at) \
                 VALUES (?, ?, {REACHED} + ? + LEAST(0, {in_time}))"
            )),
            put_user_over: text(format!(
                "UPDATE {users} SET value = ?, expires_at = {REACHED} + ? \
                 WHERE user_id = ? AND value = ? AND expires_at > {REACHED} AND {WRITABLE} AND {in_time} >= 0"
            )),
            dead_sessions: text(format!("SELECT user_id, token_id FROM {sessions} {dead}")),
            dead_users: text(format!("SELECT user_id FROM {users} {dead}")),
            remove_session: text(format!(
                "DELETE FROM {sessions} WHERE user_id = ? AND token_id = ?"
            )),
            remove_user: text(format!("DELETE FROM {users} WHERE user_id = ?")),
            any_cutoff: text(format!(
                "SELECT user_id, generation FROM {cutoffs} LIMIT 1 FOR UPDATE SKIP LOCKED"
            )),
            below_cutoff: text(format!(
                "SELECT s.token_id FROM {by_key} WHERE s.user_id = ? AND s.generation < ? LIMIT {MANY}"
            )),
            remove_cutoff: text(format!("DELETE FROM {cutoffs} WHERE user_id = ?")),
            sessions,
            by_key,
        }
    }

    /// Commits by `not_after`, or fails.
    pub(super) fn commit(&self, not_after: i64) -> SqlStr {
        // If the first statement fails, the others are not executed.
        let in_time = in_time(&not_after.to_string());
        text(format!(
            "SELECT {in_time}; COMMIT; SET SESSION wait_timeout = {UNUSED}"
        ))
    }
}

/// A statement that is cheap to clone; its only external text is the validated table prefix and hex literals.
pub(super) fn text(text: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(text)).into_sql_str()
}
