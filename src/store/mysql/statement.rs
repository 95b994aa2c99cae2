//! Prepared statements.

use sqlx::{MySql, SqlStr, mysql::MySqlArguments, query::Query};

/// A statement and its arguments.
pub(super) type Statement = Query<'static, MySql, MySqlArguments>;

/// A statement without arguments, which each connection prepares once.
pub(super) fn query(sql: &SqlStr) -> Statement {
    sqlx::query(sql.clone())
}
