//! Connections, kept for the next operation.
//!
//! sqlx's own pool asks the server again whenever a connection comes back to it, which would double the round
//! trips of a check, and its waiting is not bounded by our deadlines.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, MySqlConnection, SqlStr, mysql::MySqlConnectOptions};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot},
    time::{Instant, timeout},
};

use super::errors::Failure;

/// After this time without use a connection is closed.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// After this time a connection is not used again: its server may have been deposed without having been stopped, and
/// then a name or an address leads to another one.
const MAX_AGE: Duration = Duration::from_secs(60);

pub(super) struct Pool {
    options: MySqlConnectOptions,
    setup: SqlStr,
    connect_timeout: Duration,
    permits: Arc<Semaphore>,
    /// For what may wait for locks: checks always find connections that do not.
    turns: Semaphore,
    /// The one that was used last comes last.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: MySqlConnection,
    opened: Instant,
    used: Instant,
}

/// A connection in use. Dropping it closes it, which is right whenever it may be in the middle of something.
pub(super) struct Link {
    pub(super) connection: MySqlConnection,
    opened: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(
        options: MySqlConnectOptions,
        setup: SqlStr,
        connect_timeout: Duration,
        max_connections: u32,
    ) -> Self {
        Self {
            options,
            setup,
            connect_timeout,
            permits: Arc::new(Semaphore::new(max_connections as usize)),
            turns: Semaphore::new(max_connections.div_ceil(2) as usize),
            idle: Mutex::default(),
        }
    }

    /// A connection that worked a moment ago, or a new one; waits while all are in use.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Link, Failure> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| lost())?;
        let idle = self.idle().pop();
        match idle {
            Some(idle) => Ok(Link::new(idle.connection, idle.opened, permit)),
            None => self.connect(permit).await,
        }
    }

    /// Waits until one more transaction may be under way.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.turns.acquire().await.map_err(|_| lost())
    }

    /// The first connection, so that what is wrong shows at once.
    pub(super) async fn connect_first(&self) -> Result<(), Failure> {
        let (connection, now) = (self.open().await?, Instant::now());
        self.idle().push(Idle {
            connection,
            opened: now,
            used: now,
        });
        Ok(())
    }

    /// Keeps a connection on which the last operation has ended well.
    pub(super) fn give_back(&self, link: Link) {
        let now = Instant::now();
        if now - link.opened < MAX_AGE {
            self.idle().push(Idle {
                connection: link.connection,
                opened: link.opened,
                used: now,
            });
        }
    }

    /// Closes the connections that have shown no sign of life since then.
    pub(super) fn distrust(&self, since: Instant) {
        self.idle().retain(|idle| idle.used > since);
    }

    /// Says goodbye to the connections that nobody needed for a while.
    pub(super) async fn close_idle(&self) {
        let old: Vec<_> = {
            let mut idle = self.idle();
            let is_old = |idle: &&Idle| idle.used.elapsed() > IDLE;
            let count = idle.iter().take_while(is_old).count();
            idle.drain(..count).collect()
        };
        for Idle { connection, .. } in old {
            // An error means that it is closed already.
            let _ = timeout(self.connect_timeout, connection.close()).await;
        }
    }

    /// A new connection that belongs to no operation.
    pub(super) async fn open(&self) -> Result<MySqlConnection, sqlx::Error> {
        let opened = timeout(self.connect_timeout, async {
            let mut connection = self.options.connect().await?;
            sqlx::raw_sql(self.setup.clone())
                .execute(&mut connection)
                .await?;
            Ok(connection)
        });
        opened.await.unwrap_or_else(|_| {
            let message = "the server did not answer to an attempt to connect";
            Err(io::Error::new(io::ErrorKind::TimedOut, message).into())
        })
    }

    /// Connects in a task of its own: an attempt that takes longer than the operation that needs it serves the next.
    async fn connect(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Link, Failure> {
        let (done, link) = oneshot::channel();
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let opened = pool.open().await;
            let link = opened.map(|connection| Link::new(connection, Instant::now(), permit));
            if let Err(Ok(unwanted)) = done.send(link) {
                pool.give_back(unwanted);
            }
        });
        Ok(link.await.map_err(|_| lost())??)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing that holds the lock can panic between two halves of a change.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn new(connection: MySqlConnection, opened: Instant, permit: OwnedSemaphorePermit) -> Self {
        Self {
            connection,
            opened,
            _permit: permit,
        }
    }
}

/// The runtime ends.
fn lost() -> Failure {
    sqlx::Error::Io(io::ErrorKind::NotConnected.into()).into()
}
