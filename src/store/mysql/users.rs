//! Writing the cached users.

use std::time::Duration;

use super::{
    errors::{Failure, duplicate},
    pool::Link,
    record::span,
    sql::Sql,
    statement::query,
};
use crate::store::PutMode;

/// Writes a cached user; returns whether the condition held. Every statement is its own transaction.
pub(super) async fn put(
    link: &mut Link,
    sql: &Sql,
    user_id: &str,
    value: &[u8],
    ttl: Duration,
    mode: PutMode<'_>,
) -> Result<bool, Failure> {
    let user_id = user_id.as_bytes();
    let not_after = link.not_after();
    let put = |sql| {
        query(sql)
            .bind(user_id)
            .bind(value)
            .bind(span(ttl))
            .bind(not_after)
    };
    let put_over = |sql| query(sql).bind(value).bind(span(ttl)).bind(user_id);
    match mode {
        PutMode::Replace => {
            link.affected(put(&sql.put_user).bind(not_after)).await?;
            Ok(true)
        }
        PutMode::IfUnchanged(Some(expected)) => {
            let put = put_over(&sql.put_user_over).bind(expected);
            Ok(link.affected(put.bind(not_after)).await? > 0)
        }
        PutMode::IfUnchanged(None) => {
            let put_over = put_over(&sql.put_user_over_expired).bind(not_after);
            if link.affected(put_over).await? > 0 {
                return Ok(true);
            }
            // A duplicate row means that the user had a live one a moment ago.
            match link.affected(put(&sql.put_new_user)).await {
                Ok(_) => Ok(true),
                Err(Failure::Driver(error)) if duplicate(&error) => Ok(false),
                Err(failure) => Err(failure),
            }
        }
    }
}
