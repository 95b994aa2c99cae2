//! Cutoffs, which end very many sessions of a user at once.
//!
//! Deleting that many rows takes longer than the deadline. Instead each session has a generation, and its user may have
//! a cutoff: sessions of a lower generation have ended. Raising the cutoff is one small write. A session that is kept
//! gets the generation of the new cutoff in the same transaction, and new sessions get the generation of the cutoff.
//!
//! The purge removes the sessions below the cutoff and then the cutoff itself: without a cutoff, all generations are
//! live. Only logins and logouts of all sessions, which run one after the other, read the cutoff in order to write; the
//! purge locks its row.

use sqlx::Row;

use super::{
    errors::Failure,
    pool::Link,
    sql::{MANY, Sql},
    statement::query,
};

/// Ends all sessions of a user except `except`, in a transaction that has locked the user; returns their number.
pub(super) async fn end_all(
    link: &mut Link,
    sql: &Sql,
    user_id: &str,
    except: Option<[u8; 16]>,
) -> Result<u64, Failure> {
    let cutoff = query(&sql.cutoff).bind(user_id.as_bytes());
    let rows = cutoff.fetch_all(&mut link.open.connection).await?;
    let cutoff = rows.first().map(|row| row.try_get(0)).transpose()?;
    let mut deleted = 0;
    // A cutoff means that the user has, or just had, very many sessions: too many to delete here.
    if cutoff.is_none() {
        let delete = match &except {
            None => query(&sql.delete_all).bind(user_id.as_bytes()),
            Some(id) => query(&sql.delete_others)
                .bind(user_id.as_bytes())
                .bind(&id[..]),
        };
        deleted = link.affected(delete).await?;
        if deleted < MANY as u64 {
            return Ok(deleted);
        }
    }
    let cutoff = cutoff.unwrap_or(0);
    let (left, raised) = raise(link, sql, user_id, cutoff).await?;
    let kept = match &except {
        None => 0,
        Some(id) => {
            let keep = query(&sql.keep)
                .bind(raised)
                .bind(user_id.as_bytes())
                .bind(&id[..])
                .bind(cutoff);
            link.affected(keep).await?
        }
    };
    Ok(deleted + left.saturating_sub(kept))
}

/// Raises the cutoff of a user, in a transaction that has locked the user; returns the number of sessions that this
/// ends and the new generation.
pub(super) async fn raise(
    link: &mut Link,
    sql: &Sql,
    user_id: &str,
    cutoff: i64,
) -> Result<(u64, i64), Failure> {
    let generations = query(&sql.generations)
        .bind(cutoff)
        .bind(user_id.as_bytes());
    let row = generations.fetch_one(&mut link.open.connection).await?;
    let (left, highest): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let raised = highest.max(cutoff) + 1;
    let raise = query(&sql.raise_cutoff)
        .bind(user_id.as_bytes())
        .bind(raised);
    link.affected(raise).await?;
    Ok((u64::try_from(left).unwrap_or(0), raised))
}

/// Removes a batch of the sessions below a cutoff, and the cutoff with the last of them; returns whether there may be
/// more.
pub(super) async fn purge(link: &mut Link, sql: &Sql) -> Result<bool, Failure> {
    link.begin(sql).await?;
    // The row lock keeps the cutoff from being raised, and makes other instances skip it.
    let cutoffs = query(&sql.any_cutoff)
        .fetch_all(&mut link.open.connection)
        .await?;
    if let Some(row) = cutoffs.first() {
        let (user_id, cutoff): (&[u8], i64) = (row.try_get(0)?, row.try_get(1)?);
        let below = query(&sql.below_cutoff).bind(user_id).bind(cutoff);
        let rows = below.fetch_all(&mut link.open.connection).await?;
        let mut ids = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.extend(super::record::id(row, 0)?);
        }
        if !ids.is_empty() {
            link.run(&sql.evict(user_id, &ids)).await?;
        }
        if ids.len() < MANY {
            link.affected(query(&sql.remove_cutoff).bind(user_id))
                .await?;
        }
    }
    link.commit(sql).await?;
    Ok(!cutoffs.is_empty())
}
