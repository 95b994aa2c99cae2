//! How an operation gets a connection, and what becomes of it when something fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    MySql, SqlStr,
    mysql::{MySqlArguments, MySqlRow},
    query::Query,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    errors::{Failure, connection_lost, rolled_back, timed_out},
    pool::{Link, Pool},
    schema,
    sql::Sql,
};
use crate::{Error, ErrorKind};

/// How often an operation is tried again that the server has undone because of locks.
const LOCKED: u32 = 8;
/// The pause before the first of these tries.
const PAUSE: Duration = Duration::from_millis(2);
/// How often an operation is tried again that has lost its connection.
const LOST: u32 = 1;

pub(super) type Statement<'a> = Query<'a, MySql, MySqlArguments>;

pub(super) struct Client {
    pub(super) pool: Arc<Pool>,
    pub(super) sql: Sql,
    deadline: Duration,
    /// Whether the tables were seen to be there.
    migrated: AtomicBool,
}

/// What to do if the connection drops when the server may have committed already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenUnsure {
    Repeat,
    Fail,
}

impl Client {
    pub(super) fn new(pool: Pool, sql: Sql, deadline: Duration) -> Self {
        Self {
            pool: Arc::new(pool),
            sql,
            deadline,
            migrated: AtomicBool::new(false),
        }
    }

    /// Does some work on one connection within the deadline: again, if the connection was lost, and if the server
    /// has undone it because of locks. The work gives back the connection unless it fails.
    pub(super) async fn run<T, F>(
        &self,
        when_unsure: WhenUnsure,
        work: impl Fn(Link) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(Link, T), Failure>>,
    {
        self.within(self.deadline, self.attempts(when_unsure, work))
            .await
    }

    /// The same for a transaction, which may have to wait for a lock; `deadline` in place of that of operations.
    pub(super) async fn transaction<T, F>(
        &self,
        deadline: Option<Duration>,
        when_unsure: WhenUnsure,
        work: impl Fn(Link) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(Link, T), Failure>>,
    {
        let work = async {
            let _turn = self.pool.turn().await?;
            self.attempts(when_unsure, work).await
        };
        self.within(deadline.unwrap_or(self.deadline), work).await
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        // The connection of what is late is closed: the answer may still come.
        timeout_at(start + deadline, work)
            .await
            .unwrap_or_else(|_| {
                self.pool.distrust(start);
                Err(timed_out())
            })
    }

    async fn attempts<T, F>(
        &self,
        when_unsure: WhenUnsure,
        work: impl Fn(Link) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(Link, T), Failure>>,
    {
        let (mut lost, mut locked) = (0, 0);
        loop {
            let done = async { work(self.migrated(self.pool.take().await?).await?).await };
            let (error, unsure) = match done.await {
                Ok((link, done)) => {
                    self.pool.give_back(link);
                    return Ok(done);
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Driver(error)) => (error, false),
                Err(Failure::Unsure(error)) => (error, when_unsure == WhenUnsure::Fail),
            };
            if rolled_back(&error) && locked < LOCKED {
                locked += 1;
                sleep(PAUSE * locked).await;
                continue;
            }
            if connection_lost(&error) {
                // Most likely the server has gone, and all connections with it.
                self.pool.distrust(Instant::now());
                if lost < LOST && !unsure {
                    lost += 1;
                    continue;
                }
            }
            return Err(Failure::Driver(error).into());
        }
    }

    /// Makes sure, once, that the tables are those that the statements are about.
    async fn migrated(&self, mut link: Link) -> Result<Link, Failure> {
        if !self.migrated.load(Ordering::Relaxed) {
            schema::check(&mut link.connection, &self.sql).await?;
            self.migrated.store(true, Ordering::Relaxed);
        }
        Ok(link)
    }
}

impl Link {
    /// The rows that a statement returns.
    pub(super) async fn rows(
        mut self,
        query: Statement<'_>,
    ) -> Result<(Self, Vec<MySqlRow>), Failure> {
        // All of them, so that nothing is left to be read by the next operation.
        let rows = query.fetch_all(&mut self.connection).await?;
        Ok((self, rows))
    }

    /// How many rows a statement found and did its work on.
    pub(super) async fn affected(mut self, query: Statement<'_>) -> Result<(Self, u64), Failure> {
        let done = query.execute(&mut self.connection).await?;
        Ok((self, done.rows_affected()))
    }

    pub(super) async fn begin(&mut self, sql: &Sql) -> Result<(), Failure> {
        self.run(&sql.begin).await?;
        Ok(())
    }

    /// Begins a transaction that no other such one of this user's runs beside.
    pub(super) async fn begin_alone(&mut self, sql: &Sql, user_id: &str) -> Result<(), Failure> {
        self.begin(sql).await?;
        let lock = query(&sql.lock).bind(user_id.as_bytes());
        if lock.fetch_all(&mut self.connection).await?.is_empty() {
            let message = "a row is missing in the table of slots of the session store";
            return Err(Error::new(ErrorKind::Config, message).into());
        }
        Ok(())
    }

    pub(super) async fn commit(&mut self, sql: &Sql) -> Result<(), Failure> {
        self.run(&sql.commit).await.map_err(Failure::Unsure)
    }

    /// Without preparing it.
    pub(super) async fn run(&mut self, sql: &SqlStr) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql.clone())
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
}

/// A prepared statement; a connection prepares it when it meets it for the first time.
pub(super) fn query(sql: &SqlStr) -> Statement<'_> {
    sqlx::query(sql.clone())
}
