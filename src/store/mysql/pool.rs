//! Connections, kept for the next operation.
//!
//! sqlx's own pool asks the server again whenever a connection comes back to it, which would double the round
//! trips of a check, and its waiting is not bounded by our deadlines.
//!
//! A name or an address may begin to lead to another server while the old one goes on. That shows in three ways:
//!
//! - The old server is read-only. Each new connection asks for that, and so does each read; see [`Failure::ReadOnly`].
//! - A connection to it is lost, or it refuses a write because it is read-only. Then the pool
//!   [distrusts](Pool::distrust) all connections that were opened before. What is under way on them is answered: it
//!   began before anything that the new server does for this process. But none of them is used again.
//! - Not at all. Then the age of the connections bounds how long the old server is asked.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, MySqlConnection, SqlStr, mysql::MySqlConnectOptions};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot},
    time::{Instant, timeout},
};

use super::{clock::Clock, errors::Failure, setup};
use crate::jitter;

/// No operation begins on a connection that is older.
pub(super) const MAX_AGE: Duration = Duration::from_secs(5);
/// A connection in use is replaced in the background when it comes back at this age, or a little later.
const RENEWAL_AGE: Duration = Duration::from_secs(3);
/// How much later, at most: connections that were opened at once are not replaced at once.
const RENEWAL_SPREAD: Duration = Duration::from_secs(1);
/// How long a server may take to hear that a connection is closed.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    options: MySqlConnectOptions,
    setup: SqlStr,
    connect_timeout: Duration,
    permits: Arc<Semaphore>,
    /// For what may wait for locks: checks always find connections that do not.
    turns: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The one that was used last comes last.
    idle: Vec<Idle>,
    /// What was opened before is not used again.
    distrusted: Option<Instant>,
}

struct Idle {
    open: Open,
    used: Instant,
}

/// A connection that is ready for statements.
pub(super) struct Open {
    pub(super) connection: MySqlConnection,
    pub(super) clock: Clock,
    /// When the attempt to connect began, and with it the search for the server.
    since: Instant,
    renew: Instant,
}

/// A connection in use. Dropping it closes it, which is right whenever it may be in the middle of something.
pub(super) struct Link {
    pub(super) open: Open,
    /// When its operation is given up.
    deadline: Instant,
    permit: OwnedSemaphorePermit,
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
            state: Mutex::default(),
        }
    }

    /// A connection for an operation that ends by `deadline`: one that worked a moment ago, or a new one. Waits while
    /// all are in use.
    pub(super) async fn take(self: &Arc<Self>, deadline: Instant) -> Result<Link, Failure> {
        let permit = self.permit().await?;
        match self.take_idle() {
            Some(open) => Ok(Link {
                open,
                deadline,
                permit,
            }),
            None => self.connect(deadline, permit).await,
        }
    }

    /// A new connection for an operation that ends by `deadline`, although others may be idle.
    pub(super) async fn take_new(self: &Arc<Self>, deadline: Instant) -> Result<Link, Failure> {
        let permit = self.permit().await?;
        self.make_room();
        self.connect(deadline, permit).await
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.map_err(|_| lost())
    }

    /// Closes an idle connection if one more, for which there is a permit, would be too many.
    fn make_room(&self) {
        let mut state = self.state();
        if state.idle.len() > self.permits.available_permits() {
            close(state.idle.remove(0).open.connection);
        }
    }

    fn take_idle(&self) -> Option<Open> {
        let mut state = self.state();
        while let Some(Idle { open, .. }) = state.idle.pop() {
            if !open.is_old() {
                return Some(open);
            }
            close(open.connection);
        }
        None
    }

    /// Waits until one more transaction may be under way.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.turns.acquire().await.map_err(|_| lost())
    }

    /// The first connection, so that what is wrong shows at once.
    pub(super) async fn connect_first(&self) -> Result<(), Failure> {
        let open = self.open().await?;
        self.keep(open);
        Ok(())
    }

    /// Takes back a connection on which the last operation has ended well.
    pub(super) fn give_back(self: &Arc<Self>, link: Link) {
        let Link { open, permit, .. } = link;
        if Instant::now() < open.renew {
            self.keep(open);
        } else {
            self.renew(open, permit);
        }
    }

    /// Makes a connection available, unless it is distrusted.
    fn keep(&self, open: Open) {
        let mut state = self.state();
        if state.distrusted.is_some_and(|since| open.since <= since) {
            close(open.connection);
        } else {
            let used = Instant::now();
            state.idle.push(Idle { open, used });
        }
    }

    /// Opens another connection in place of an old one, so that no operation has to wait for it.
    fn renew(self: &Arc<Self>, old: Open, permit: OwnedSemaphorePermit) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            // First, so that there never are more connections than permits.
            let _ = timeout(GOODBYE, old.connection.close()).await;
            // What is wrong is found out by the next operation that needs a connection.
            if let Ok(new) = pool.open().await {
                pool.keep(new);
            }
            drop(permit);
        });
    }

    /// From now on no connection is used that was opened before: its server may have gone, or may have been deposed.
    pub(super) fn distrust(&self) {
        let mut state = self.state();
        state.distrusted = Some(Instant::now());
        for Idle { open, .. } in state.idle.drain(..) {
            close(open.connection);
        }
    }

    /// Closes the connections that have shown no sign of life since then.
    pub(super) fn close_silent(&self, since: Instant) {
        self.close_if(|idle| idle.used <= since);
    }

    /// Closes the connections that nobody used before they became too old.
    pub(super) fn close_old(&self) {
        self.close_if(|idle| idle.open.is_old());
    }

    fn close_if(&self, unwanted: impl Fn(&Idle) -> bool) {
        let mut state = self.state();
        for Idle { open, .. } in state.idle.extract_if(.., |idle| unwanted(idle)) {
            close(open.connection);
        }
    }

    /// A new connection that belongs to no operation.
    pub(super) async fn open_alone(&self) -> Result<MySqlConnection, Failure> {
        Ok(self.open().await?.connection)
    }

    async fn open(&self) -> Result<Open, Failure> {
        let since = Instant::now();
        let opened = timeout(self.connect_timeout, async {
            let mut connection = self.options.connect().await?;
            let clock = setup::run(&mut connection, &self.setup).await?;
            Ok::<_, Failure>((connection, clock))
        });
        let (connection, clock) = opened.await.unwrap_or_else(|_| {
            let message = "the server did not answer to an attempt to connect";
            let error = io::Error::new(io::ErrorKind::TimedOut, message);
            Err(sqlx::Error::Io(error).into())
        })?;
        Ok(Open {
            connection,
            clock,
            since,
            renew: since + RENEWAL_AGE + jitter::up_to(RENEWAL_SPREAD),
        })
    }

    /// Connects in a task of its own: an attempt that takes longer than the operation that needs it serves the next.
    async fn connect(
        self: &Arc<Self>,
        deadline: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Result<Link, Failure> {
        let (done, link) = oneshot::channel();
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let opened = pool.open().await;
            let link = opened.map(|open| Link {
                open,
                deadline,
                permit,
            });
            if let Err(Ok(unwanted)) = done.send(link) {
                pool.give_back(unwanted);
            }
        });
        link.await.map_err(|_| lost())?
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic between two halves of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close_if(|_| true);
    }
}

impl Open {
    fn is_old(&self) -> bool {
        self.since.elapsed() >= MAX_AGE
    }
}

impl Link {
    /// The time, by the server's clock, after which the operation must not be done any more.
    pub(super) fn not_after(&self) -> i64 {
        self.open.clock.at_least(self.deadline)
    }
}

/// Closes a connection on which nothing is under way, and says so: otherwise the server warns of it in its log.
fn close(connection: MySqlConnection) {
    // Without a runtime it just ends.
    if let Ok(runtime) = Handle::try_current() {
        // An error means that it is closed already.
        runtime.spawn(timeout(GOODBYE, connection.close()));
    }
}

/// The runtime ends.
fn lost() -> Failure {
    sqlx::Error::Io(io::ErrorKind::NotConnected.into()).into()
}
