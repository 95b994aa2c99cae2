//! Writing the cached users.

use std::time::Duration;

use super::{
    client::query,
    errors::{Failure, duplicate},
    pool::Link,
    record::span,
    sql::Sql,
};
use crate::store::PutMode;

/// Whether the condition held; every statement is a transaction of its own.
pub(super) async fn put(
    link: &mut Link,
    sql: &Sql,
    user_id: &str,
    value: &[u8],
    ttl: Duration,
    mode: PutMode<'_>,
) -> Result<bool, Failure> {
    let user_id = user_id.as_bytes();
    let put = |sql| query(sql).bind(user_id).bind(value).bind(span(ttl));
    let put_over = |sql| query(sql).bind(value).bind(span(ttl)).bind(user_id);
    match mode {
        PutMode::Replace => {
            put(&sql.put_user).execute(&mut link.connection).await?;
            Ok(true)
        }
        PutMode::IfUnchanged(Some(expected)) => {
            let done = put_over(&sql.put_user_over).bind(expected);
            let done = done.execute(&mut link.connection).await?;
            Ok(done.rows_affected() > 0)
        }
        PutMode::IfUnchanged(None) => {
            let done = put_over(&sql.put_user_over_expired);
            let done = done.execute(&mut link.connection).await?;
            if done.rows_affected() > 0 {
                return Ok(true);
            }
            // If there is a row now, there was a live one a moment ago.
            match put(&sql.put_new_user).execute(&mut link.connection).await {
                Ok(_) => Ok(true),
                Err(error) if duplicate(&error) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
    }
}
