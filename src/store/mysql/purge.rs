//! The background purge of expired and ended sessions, expired users and old connections.

use std::{sync::Arc, time::Duration};

use sqlx::{Row, SqlStr};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    client::Client,
    cutoffs,
    errors::Failure,
    pool::{Link, MAX_AGE},
    sql::{BATCH, Sql},
    statement::query,
};
use crate::Error;

/// The time limit of a batch of the purge, which holds locks.
const DEADLINE: Duration = Duration::from_secs(5);

/// A background task, which is aborted on drop.
pub(super) struct Background(JoinHandle<()>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the purge of dead rows, if it has an interval.
pub(super) fn purge(client: &Arc<Client>, interval: Option<Duration>) -> Option<Background> {
    let (client, interval) = (Arc::clone(client), interval?);
    Some(Background(tokio::spawn(async move {
        loop {
            sleep(interval).await;
            while batch(&client).await.is_ok_and(|full| full) {}
        }
    })))
}

/// Starts a task that closes idle connections when they are too old.
pub(super) fn close_old(client: &Arc<Client>) -> Background {
    let pool = Arc::clone(&client.pool);
    Background(tokio::spawn(async move {
        loop {
            sleep(MAX_AGE).await;
            pool.close_old();
        }
    }))
}

/// Removes a batch of rows; returns whether there may be more.
async fn batch(client: &Client) -> Result<bool, Error> {
    let sql = &client.sql;
    let remove = |find, remove| {
        client.maintenance(DEADLINE, move |mut link| async move {
            let rows = self::remove(&mut link, sql, find, remove).await?;
            Ok((link, rows))
        })
    };
    let sessions = remove(&sql.dead_sessions, &sql.remove_session).await;
    let users = remove(&sql.dead_users, &sql.remove_user).await;
    let ended = client.maintenance(DEADLINE, move |mut link| async move {
        let more = cutoffs::purge(&mut link, sql).await?;
        Ok((link, more))
    });
    let ended = ended.await;
    Ok(sessions? == BATCH || users? == BATCH || ended?)
}

/// Removes the rows that `find` selects, by their keys; returns their number.
///
/// It skips locked rows: another instance removes them, or a login replaces them.
async fn remove(
    link: &mut Link,
    sql: &Sql,
    find: &SqlStr,
    remove: &SqlStr,
) -> Result<usize, Failure> {
    link.begin(sql).await?;
    let dead = query(find).fetch_all(&mut link.open.connection).await?;
    for row in &dead {
        // One statement per row, so that no other row is scanned and locked.
        let mut remove = query(remove);
        for column in 0..row.len() {
            remove = remove.bind(row.try_get::<&[u8], _>(column)?);
        }
        remove.execute(&mut link.open.connection).await?;
    }
    link.commit(sql).await?;
    Ok(dead.len())
}
