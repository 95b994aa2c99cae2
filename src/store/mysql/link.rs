//! Statements on a connection in use.

use sqlx::{Row, SqlStr, mysql::MySqlRow};
use tokio::time::Instant;

use super::{
    errors::Failure,
    pool::Link,
    sql::{Sql, slot_of},
    statement::{Statement, query},
};
use crate::{Error, ErrorKind};

impl Link {
    /// Runs a read and returns its rows; the first column of each is the server's time.
    pub(super) async fn read(&mut self, query: Statement) -> Result<Vec<MySqlRow>, Failure> {
        let asked = Instant::now();
        // Fetches all rows, so that the next operation finds none of them on the connection.
        let rows = query.fetch_all(&mut self.open.connection).await;
        let rows = rows.map_err(Failure::of_read)?;
        if let Some(row) = rows.first() {
            self.open.clock.learn(row.try_get(0)?, asked);
        }
        Ok(rows)
    }

    /// Runs a write and returns the number of affected rows.
    pub(super) async fn affected(&mut self, query: Statement) -> Result<u64, Failure> {
        let done = query.execute(&mut self.open.connection).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn begin(&mut self, sql: &Sql) -> Result<(), Failure> {
        self.run(&sql.begin).await
    }

    /// Begins a transaction and locks the user's slot, which excludes other such transactions of this user.
    pub(super) async fn begin_alone(&mut self, sql: &Sql, user_id: &str) -> Result<(), Failure> {
        self.begin(sql).await?;
        let lock = query(&sql.lock).bind(slot_of(user_id));
        if lock.fetch_all(&mut self.open.connection).await?.is_empty() {
            let message =
                "the table of slots of the session store lacks rows: call `MySqlStore::migrate()`";
            return Err(Error::new(ErrorKind::Config, message).into());
        }
        Ok(())
    }

    /// Commits, unless the server executes this after the deadline.
    ///
    /// A server that stops between the clock check and the commit, or is delayed in the commit itself, may still commit
    /// later. Until then the transaction holds its locks: nothing that they exclude is acknowledged in between.
    pub(super) async fn commit(&mut self, sql: &Sql) -> Result<(), Failure> {
        match self.run(&sql.commit(self.not_after())).await {
            Err(Failure::Driver(error)) => Err(Failure::Unsure(error)),
            done => done,
        }
    }

    /// Runs statements without preparing them.
    pub(super) async fn run(&mut self, sql: &SqlStr) -> Result<(), Failure> {
        sqlx::raw_sql(sql.clone())
            .execute(&mut self.open.connection)
            .await?;
        Ok(())
    }
}
