//! Statements on a connection in use.

use sqlx::{Row, SqlStr, mysql::MySqlRow};
use tokio::time::Instant;

use super::{
    errors::Failure,
    pool::Link,
    sql::Sql,
    statement::{Statement, query},
};
use crate::{Error, ErrorKind};

impl Link {
    /// The rows of a read, each of which begins with the time.
    pub(super) async fn read(&mut self, query: Statement) -> Result<Vec<MySqlRow>, Failure> {
        let asked = Instant::now();
        // All of them, so that nothing is left to be read by the next operation.
        let rows = query.fetch_all(&mut self.open.connection).await;
        let rows = rows.map_err(Failure::of_read)?;
        if let Some(row) = rows.first() {
            self.open.clock.learn(row.try_get(0)?, asked);
        }
        Ok(rows)
    }

    /// How many rows a statement found and did its work on.
    pub(super) async fn affected(&mut self, query: Statement) -> Result<u64, Failure> {
        let done = query.execute(&mut self.open.connection).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn begin(&mut self, sql: &Sql) -> Result<(), Failure> {
        self.run(&sql.begin).await
    }

    /// Begins a transaction that no other such one of this user's runs beside.
    pub(super) async fn begin_alone(&mut self, sql: &Sql, user_id: &str) -> Result<(), Failure> {
        self.begin(sql).await?;
        let lock = query(&sql.lock).bind(user_id.as_bytes());
        if lock.fetch_all(&mut self.open.connection).await?.is_empty() {
            let message = "a row is missing in the table of slots of the session store";
            return Err(Error::new(ErrorKind::Config, message).into());
        }
        Ok(())
    }

    /// Commits, unless the server reads this after the deadline.
    ///
    /// A server that stops between the look at its clock and the commit, or is held up in the commit itself, may still
    /// commit later. Until then the transaction has its locks: nothing that they exclude was acknowledged in between.
    pub(super) async fn commit(&mut self, sql: &Sql) -> Result<(), Failure> {
        match self.run(&sql.commit(self.not_after())).await {
            Err(Failure::Driver(error)) => Err(Failure::Unsure(error)),
            done => done,
        }
    }

    /// Without preparing it.
    pub(super) async fn run(&mut self, sql: &SqlStr) -> Result<(), Failure> {
        sqlx::raw_sql(sql.clone())
            .execute(&mut self.open.connection)
            .await?;
        Ok(())
    }
}
