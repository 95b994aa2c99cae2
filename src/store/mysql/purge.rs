//! The end of what has expired, and of what has ended with very many others.

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

/// How long a batch of the purge may take: nobody waits for it, but it holds locks.
const DEADLINE: Duration = Duration::from_secs(5);

/// A task that ends with this.
pub(super) struct Background(JoinHandle<()>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Removes what is dead, if there is an interval for it.
pub(super) fn purge(client: &Arc<Client>, interval: Option<Duration>) -> Option<Background> {
    let (client, interval) = (Arc::clone(client), interval?);
    Some(Background(tokio::spawn(async move {
        loop {
            sleep(interval).await;
            while batch(&client).await.is_ok_and(|full| full) {}
        }
    })))
}

/// Closes connections that nobody needs.
pub(super) fn close_old(client: &Arc<Client>) -> Background {
    let pool = Arc::clone(&client.pool);
    Background(tokio::spawn(async move {
        loop {
            sleep(MAX_AGE).await;
            pool.close_old();
        }
    }))
}

/// Removes a few rows; whether there may be more.
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

/// Removes the rows that `find` finds, by their keys; how many.
///
/// It leaves out what others have locked: another instance removes it, or a login replaces it.
async fn remove(
    link: &mut Link,
    sql: &Sql,
    find: &SqlStr,
    remove: &SqlStr,
) -> Result<usize, Failure> {
    link.begin(sql).await?;
    let dead = query(find).fetch_all(&mut link.open.connection).await?;
    for row in &dead {
        // One by one, so that no other row is looked at, and locked.
        let mut remove = query(remove);
        for column in 0..row.len() {
            remove = remove.bind(row.try_get::<&[u8], _>(column)?);
        }
        remove.execute(&mut link.open.connection).await?;
    }
    link.commit(sql).await?;
    Ok(dead.len())
}
