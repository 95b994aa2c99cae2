//! A login, inside a transaction that has locked the user.

use super::{
    client::query,
    errors::Failure,
    pool::Link,
    record::{self, millis, now},
    sql::Sql,
};
use crate::{
    TokenId,
    store::{Created, NewSession, OnFull, SessionLimit, SessionRecord},
};

/// How many sessions are ended by one statement.
const MANY: usize = 512;

/// `None` if the limit does not allow another session.
pub(super) async fn create(
    link: &mut Link,
    sql: &Sql,
    user_id: &str,
    token_id: &TokenId,
    new: &NewSession,
    limit: Option<SessionLimit>,
) -> Result<Option<Created>, Failure> {
    let id = record::bytes(token_id);
    let live = match limit {
        Some(_) => query(&sql.live_all).bind(user_id.as_bytes()),
        None => query(&sql.live_one).bind(user_id.as_bytes()).bind(&id[..]),
    };
    let rows = live.fetch_all(&mut link.connection).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let now = now(row)?;
    let mut live = Vec::new();
    for row in &rows {
        live.extend(record::session(row)?);
    }
    if let Some((_, session)) = live.iter().find(|(live, _)| live == token_id) {
        return Ok(Some(Created::new(session.clone(), Vec::new())));
    }
    let Some(evicted) = limit.map_or(Some(Vec::new()), |limit| surplus(live, limit)) else {
        return Ok(None);
    };
    let ids: Vec<_> = evicted.iter().map(|(id, _)| record::bytes(id)).collect();
    for ids in ids.chunks(MANY) {
        link.run(&sql.evict(user_id.as_bytes(), ids)).await?;
    }
    let session = SessionRecord::begin(new, now);
    query(&sql.insert)
        .bind(user_id.as_bytes())
        .bind(&id[..])
        .bind(millis(session.created_at))
        .bind(millis(session.refreshed_at))
        .bind(millis(session.expires_at))
        .bind(session.ends_at.map(millis))
        .bind(session.metadata.as_deref())
        .execute(&mut link.connection)
        .await?;
    Ok(Some(Created::new(session, evicted)))
}

/// The sessions that must go for one more, first to go first; `None` if it is the new one that must.
fn surplus(
    mut live: Vec<(TokenId, SessionRecord)>,
    limit: SessionLimit,
) -> Option<Vec<(TokenId, SessionRecord)>> {
    let surplus = (live.len() + 1).saturating_sub(limit.max.get() as usize);
    match limit.on_full {
        OnFull::Reject if surplus > 0 => return None,
        OnFull::Reject => {}
        OnFull::EvictOldest => live.sort_by_key(|(id, session)| (session.created_at, *id)),
        OnFull::EvictLeastRecentlyRefreshed => {
            live.sort_by_key(|(id, session)| (session.refreshed_at, *id));
        }
    }
    live.truncate(surplus);
    Some(live)
}
