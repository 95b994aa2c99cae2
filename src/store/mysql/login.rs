//! A login, inside a transaction that has locked the user.

use std::time::SystemTime;

use sqlx::Row;

use super::{
    cutoffs,
    errors::Failure,
    pool::Link,
    record::{self, millis},
    sql::{AFTER, MANY, Sql},
    statement::query,
};
use crate::{
    TokenId,
    store::{Created, NewSession, OnFull, SessionLimit, SessionRecord},
};

type Sessions = Vec<(TokenId, SessionRecord)>;

/// A login and the state of its user.
struct Login<'a> {
    link: &'a mut Link,
    sql: &'a Sql,
    user_id: &'a str,
    now: i64,
    /// The generation below which sessions have ended.
    cutoff: i64,
}

/// Creates a session; `None` if the limit does not allow another one.
pub(super) async fn create(
    link: &mut Link,
    sql: &Sql,
    user_id: &str,
    token_id: &TokenId,
    new: &NewSession,
    limit: Option<SessionLimit>,
) -> Result<Option<Created>, Failure> {
    let id = token_id.to_bytes();
    let user = user_id.as_bytes();
    let live = match limit {
        Some(_) => query(&sql.live_of).bind(user),
        None => query(&sql.live),
    };
    let rows = link.read(live.bind(user).bind(user).bind(&id[..])).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    if let Some((_, session)) = record::session(row)? {
        let session = record::readable(session)?;
        return Ok(Some(Created::new(session, Vec::new())));
    }
    let now = record::now(row)?;
    let mut login = Login {
        link,
        sql,
        user_id,
        now: millis(now),
        cutoff: row.try_get(AFTER)?,
    };
    let mut evicted = Vec::new();
    if let Some(limit) = limit {
        let count: i64 = row.try_get(AFTER + 1)?;
        let surplus = count + 1 - i64::from(limit.max.get());
        if surplus > 0 {
            let Some(order) = Order::of(limit.on_full) else {
                return Ok(None);
            };
            evicted = login.make_room(order, limit, surplus).await?;
        }
    }
    let session = login.insert(&id, new, now).await?;
    Ok(Some(Created::new(session, evicted)))
}

/// The column that determines the order of eviction, lowest first.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    CreatedAt,
    RefreshedAt,
}

impl Order {
    fn of(on_full: OnFull) -> Option<Self> {
        match on_full {
            OnFull::Reject => None,
            OnFull::EvictOldest => Some(Self::CreatedAt),
            OnFull::EvictLeastRecentlyRefreshed => Some(Self::RefreshedAt),
        }
    }

    /// The sort key that the server uses.
    fn key(self, (id, session): &(TokenId, SessionRecord)) -> (i64, [u8; 16]) {
        let time = match self {
            Self::CreatedAt => session.created_at,
            Self::RefreshedAt => session.refreshed_at,
        };
        (millis(time), id.to_bytes())
    }
}

impl Login<'_> {
    /// Evicts the first `surplus` sessions; if these are more than [`MANY`], it may return only the first of them.
    async fn make_room(
        &mut self,
        order: Order,
        limit: SessionLimit,
        surplus: i64,
    ) -> Result<Sessions, Failure> {
        if surplus <= MANY as i64 || surplus < i64::from(limit.max.get()) {
            let evicted = self.first(order, surplus).await?;
            for evicted in evicted.chunks(MANY) {
                self.link
                    .run(&self.sql.evict(self.user_id.as_bytes(), &ids(evicted)))
                    .await?;
            }
            return Ok(evicted);
        }
        // Keeping the other sessions is less work than deleting these.
        let evicted = self.first(order, MANY as i64).await?;
        let keepers = &self.sql.keepers[order as usize];
        let kept = self
            .in_order(keepers, i64::from(limit.max.get()) - 1)
            .await?;
        let (_, raised) = cutoffs::raise(self.link, self.sql, self.user_id, self.cutoff).await?;
        self.cutoff = raised;
        for kept in kept.chunks(MANY) {
            let ids: Vec<_> = kept.iter().map(|(id, _)| *id).collect();
            let keep = self.sql.keep_these(self.user_id.as_bytes(), &ids, raised);
            self.link.run(&keep).await?;
        }
        Ok(evicted)
    }

    /// Locks and returns the first `count` live sessions; fewer if some of them were logged out concurrently.
    async fn first(&mut self, order: Order, count: i64) -> Result<Sessions, Failure> {
        loop {
            // Selects without locks, because there may be very many candidates.
            let victims = &self.sql.victims[order as usize];
            let chosen = self.in_order(victims, count).await?;
            let mut first = Vec::with_capacity(chosen.len());
            for chosen in chosen.chunks(MANY) {
                let ids: Vec<_> = chosen.iter().map(|(id, _)| *id).collect();
                let lock = self
                    .sql
                    .lock_live(self.user_id.as_bytes(), &ids, self.now, self.cutoff);
                let rows = sqlx::raw_sql(lock)
                    .fetch_all(&mut self.link.open.connection)
                    .await?;
                for row in &rows {
                    first.extend(record::session(row)?);
                }
            }
            first.sort_by_key(|session| order.key(session));
            // Starts over if one of them was refreshed before it was locked.
            if order == Order::CreatedAt
                || first.iter().all(|session| {
                    let key = order.key(session);
                    chosen
                        .binary_search_by_key(&key, |(id, time)| (*time, *id))
                        .is_ok()
                })
            {
                return Ok(first);
            }
        }
    }

    /// The first `count` live sessions of the user, in the order of the statement.
    async fn in_order(
        &mut self,
        statement: &sqlx::SqlStr,
        count: i64,
    ) -> Result<Vec<([u8; 16], i64)>, Failure> {
        let select = query(statement)
            .bind(self.user_id.as_bytes())
            .bind(self.now)
            .bind(self.cutoff)
            .bind(count);
        let rows = select.fetch_all(&mut self.link.open.connection).await?;
        let mut sessions = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(id) = record::id(row, 0)? {
                sessions.push((id, row.try_get(1)?));
            }
        }
        Ok(sessions)
    }

    async fn insert(
        &mut self,
        id: &[u8; 16],
        new: &NewSession,
        now: SystemTime,
    ) -> Result<SessionRecord, Failure> {
        let session = SessionRecord::begin(new, now);
        let insert = query(&self.sql.insert)
            .bind(self.user_id.as_bytes())
            .bind(&id[..])
            .bind(millis(session.created_at))
            .bind(millis(session.refreshed_at))
            .bind(millis(session.expires_at))
            .bind(session.ends_at.map(millis))
            .bind(session.metadata.as_deref())
            .bind(self.cutoff);
        self.link.affected(insert).await?;
        Ok(session)
    }
}

fn ids(sessions: &[(TokenId, SessionRecord)]) -> Vec<[u8; 16]> {
    sessions.iter().map(|(id, _)| id.to_bytes()).collect()
}
