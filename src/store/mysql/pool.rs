//! A connection pool.
//!
//! sqlx's own pool pings the server whenever a connection is returned, which would double the round trips of a check,
//! and its waiting is not bounded by our deadlines.
//!
//! A host name or address may move to another server while the old one still runs. There are three cases:
//!
//! - The old server is read-only. Each new connection and each read checks for that; see [`Failure::ReadOnly`].
//! - A connection to the old server is lost, or it refuses a write because it is read-only. Then the pool
//!   [distrusts](Pool::distrust) all connections that were opened before. Operations in flight on them complete,
//!   because they began before any operation of this process on the new server, but no connection is used again.
//! - There is no sign. Then the age of the connections bounds how long the old server is used.

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

/// The maximum age of a connection on which an operation begins.
pub(super) const MAX_AGE: Duration = Duration::from_secs(5);
/// The age, without jitter, at which a returned connection is replaced in the background.
const RENEWAL_AGE: Duration = Duration::from_secs(3);
/// The jitter of [`RENEWAL_AGE`], so that connections that were opened together are not replaced together.
const RENEWAL_SPREAD: Duration = Duration::from_secs(1);
/// The time limit for closing a connection gracefully.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    options: MySqlConnectOptions,
    setup: SqlStr,
    connect_timeout: Duration,
    permits: Arc<Semaphore>,
    /// Permits for operations that may wait for locks, so that checks always find a connection that does not.
    turns: Semaphore,
    /// Permits for checks. Those that wait for one are behind all other operations, which wait for a connection only.
    checks: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The idle connections, most recently used last.
    idle: Vec<Idle>,
    /// Connections that were opened before this moment are not used again.
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
    /// When the connection attempt began, including the name lookup.
    since: Instant,
    renew: Instant,
}

/// A connection in use. Dropping it closes it, because a statement may be in flight.
pub(super) struct Link {
    pub(super) open: Open,
    /// The deadline of the operation.
    deadline: Instant,
    /// An earlier attempt of the operation may have taken effect: its connection was lost before the reply.
    pub(super) is_retry: bool,
    permit: OwnedSemaphorePermit,
}

/// A new connection on its way to its operation. Dropping it returns it to the pool, because it is in no use yet.
struct Fresh {
    link: Option<Link>,
    pool: Arc<Pool>,
}

impl Fresh {
    fn claim(mut self) -> Link {
        self.link.take().expect("nobody else takes it")
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(Link { open, .. }) = self.link.take() {
            // Not `give_back`, which needs a runtime.
            self.pool.keep(open);
        }
    }
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
            checks: Semaphore::new(max_connections as usize),
            state: Mutex::default(),
        }
    }

    /// Waits while all connections are in use.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.map_err(|_| lost())
    }

    /// Takes an idle connection, or opens one, for an operation with this `deadline`.
    pub(super) async fn take(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Link, Failure> {
        match self.take_idle() {
            Ok(open) => Ok(Link::new(open, deadline, permit)),
            Err(old) => self.connect(permit, deadline, old).await,
        }
    }

    /// Opens a new connection for an operation with this `deadline`, even if others are idle.
    pub(super) async fn take_new(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Link, Failure> {
        let surplus = self.make_room();
        self.connect(permit, deadline, surplus).await
    }

    /// Takes out the idle connections that must be closed before a new one is opened, because of the maximum.
    fn make_room(&self) -> Vec<Open> {
        let mut state = self.state();
        let room = self.permits.available_permits();
        let surplus = state.idle.len().saturating_sub(room);
        state.idle.drain(..surplus).map(|idle| idle.open).collect()
    }

    /// Takes an idle connection, or else all those that are too old.
    fn take_idle(&self) -> Result<Open, Vec<Open>> {
        let mut state = self.state();
        let young = state.idle.iter().rposition(|idle| !idle.open.is_old());
        match young {
            Some(young) => Ok(state.idle.remove(young).open),
            None => Err(state.idle.drain(..).map(|idle| idle.open).collect()),
        }
    }

    /// Waits until another transaction may be in flight.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.turns.acquire().await.map_err(|_| lost())
    }

    /// Waits until few enough checks wait for a connection.
    pub(super) async fn check_turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.checks.acquire().await.map_err(|_| lost())
    }

    /// Opens the first connection, so that errors surface at once.
    pub(super) async fn connect_first(&self) -> Result<(), Failure> {
        let open = self.open().await?;
        self.keep(open);
        Ok(())
    }

    /// Takes back a connection after a successful operation.
    pub(super) fn give_back(self: &Arc<Self>, link: Link) {
        let Link { open, permit, .. } = link;
        if Instant::now() < open.renew {
            self.keep(open);
        } else {
            self.renew(open, permit);
        }
    }

    /// Adds a connection to the idle ones, unless it is distrusted.
    fn keep(&self, open: Open) {
        let mut state = self.state();
        if state.distrusted.is_some_and(|since| open.since <= since) {
            close(open.connection);
        } else {
            let used = Instant::now();
            state.idle.push(Idle { open, used });
        }
    }

    /// Replaces an old connection in the background, so that no operation waits for it.
    fn renew(self: &Arc<Self>, old: Open, permit: OwnedSemaphorePermit) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            close_all(vec![old]).await;
            // The next operation that needs a connection reports an error.
            if let Ok(new) = pool.open().await {
                pool.keep(new);
            }
            drop(permit);
        });
    }

    /// Stops using all connections that are open now: their server may be down, or no longer the primary.
    pub(super) fn distrust(&self) {
        let mut state = self.state();
        state.distrusted = Some(Instant::now());
        for Idle { open, .. } in state.idle.drain(..) {
            close(open.connection);
        }
    }

    /// Closes the idle connections that were last used before `since`, when a server that stayed silent was asked.
    pub(super) fn close_silent(&self, since: Instant) {
        self.close_if(|idle| idle.used <= since);
    }

    /// Closes the idle connections that are too old.
    pub(super) fn close_old(&self) {
        self.close_if(|idle| idle.open.is_old());
    }

    fn close_if(&self, unwanted: impl Fn(&Idle) -> bool) {
        let mut state = self.state();
        for Idle { open, .. } in state.idle.extract_if(.., |idle| unwanted(idle)) {
            close(open.connection);
        }
    }

    /// Opens a connection outside of the pool.
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

    /// Connects in its own task, so that an attempt that outlasts its operation serves the next one. Closes the `old`
    /// connections before that, because they count towards the maximum.
    async fn connect(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
        old: Vec<Open>,
    ) -> Result<Link, Failure> {
        let (done, link) = oneshot::channel();
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            close_all(old).await;
            let link = pool.open().await.map(|open| Fresh {
                link: Some(Link::new(open, deadline, permit)),
                pool,
            });
            // A fresh connection that nobody waits for goes back to the pool.
            drop(done.send(link));
        });
        Ok(link.await.map_err(|_| lost())??.claim())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic in the middle of a change.
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
    fn new(open: Open, deadline: Instant, permit: OwnedSemaphorePermit) -> Self {
        Self {
            open,
            deadline,
            is_retry: false,
            permit,
        }
    }

    /// The deadline of the operation, by the server's clock.
    pub(super) fn not_after(&self) -> i64 {
        self.open.clock.at_least(self.deadline)
    }
}

/// Closes an idle connection gracefully: otherwise the server logs a warning.
fn close(connection: MySqlConnection) {
    // Without a runtime, the connection is just dropped.
    if let Ok(runtime) = Handle::try_current() {
        // An error means that the connection is already closed.
        runtime.spawn(timeout(CLOSE_TIMEOUT, connection.close()));
    }
}

/// Closes connections gracefully, which needs no reply of the server.
async fn close_all(connections: Vec<Open>) {
    let closing = async {
        for open in connections {
            let _ = open.connection.close().await;
        }
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// The failure of an operation while the runtime shuts down.
fn lost() -> Failure {
    sqlx::Error::Io(io::ErrorKind::NotConnected.into()).into()
}
