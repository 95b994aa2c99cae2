//! Keeps a connection to the server.
//!
//! A task of its own connects, and connects anew whenever the connection of the current *generation* is
//! reported as broken: it was lost, an operation failed in a way that another connection may cure, or a few
//! operations in a row got no answer. While the first attempt to replace a connection runs, operations
//! wait for it within their deadline; once an attempt has failed, they fail at once until one succeeds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    errors::ErrorText,
    topology::{Connections, Topology},
};
use crate::{Error, ErrorKind};

/// So many unanswered operations in a row make a connection count as broken: a network that drops
/// packets silently shows no error.
const MAX_TIMEOUTS_IN_A_ROW: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(200);
/// A connection that breaks sooner than this is not replaced without a pause.
const STABLE: Duration = Duration::from_secs(1);

/// The task that connects.
pub(super) struct Supervisor {
    pub(super) topology: Topology,
    pub(super) config: AsyncConnectionConfig,
    pub(super) connect_timeout: Duration,
    pub(super) state: watch::Sender<State>,
    pub(super) reports: Reports,
    pub(super) errors: ErrorText,
}

impl Supervisor {
    pub(super) async fn run(self) {
        let mut backoff = FIRST_BACKOFF;
        for generation in 1.. {
            match self.connect(generation).await {
                Ok(connections) => {
                    let since = Instant::now();
                    self.state.send_replace(State::Up(Arc::new(Live {
                        generation,
                        connections,
                        timeouts_in_a_row: AtomicU32::new(0),
                    })));
                    self.reports.until_broken(generation).await;
                    self.state.send_replace(State::Connecting);
                    if since.elapsed() >= STABLE {
                        backoff = FIRST_BACKOFF;
                        continue;
                    }
                }
                Err(error) => {
                    self.state.send_replace(State::Down(error));
                }
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    async fn connect(&self, generation: u64) -> Result<Connections, Error> {
        let reports = self.reports.clone();
        let on_lost = move || reports.broken(generation);
        let connecting = self.topology.connect(&self.config, on_lost);
        match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(connections)) => Ok(connections),
            Ok(Err(error)) => Err(self.errors.convert(&error)),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("no connection to Redis within {:?}", self.connect_timeout),
            )),
        }
    }
}

/// What operations need to know of the connection.
pub(super) enum State {
    /// An attempt runs, and none has failed since the last connection.
    Connecting,
    Up(Arc<Live>),
    /// At least one attempt has failed; more are made.
    Down(Error),
}

impl State {
    /// What an operation that knows the generation `broken` to be so gets; `None`: it has to wait.
    pub(super) fn verdict(&self, broken: u64) -> Option<Result<Arc<Live>, Error>> {
        match self {
            Self::Up(live) if live.generation > broken => Some(Ok(Arc::clone(live))),
            Self::Up(_) | Self::Connecting => None,
            Self::Down(error) => Some(Err(error.clone())),
        }
    }
}

/// A connection that works, as far as is known.
pub(super) struct Live {
    pub(super) generation: u64,
    connections: Connections,
    timeouts_in_a_row: AtomicU32,
}

impl Live {
    /// A handle on one of the connections.
    pub(super) fn connection(&self, lane: Lane) -> MultiplexedConnection {
        match lane {
            Lane::Main => self.connections.main.clone(),
            Lane::Bulk => self.connections.bulk.clone(),
        }
    }

    /// Notes that an operation was answered.
    pub(super) fn answered(&self) {
        // Nearly always zero, and then not written: all operations share it.
        if self.timeouts_in_a_row.load(Ordering::Relaxed) != 0 {
            self.timeouts_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that an operation was not answered; `true` if that makes the connection count as broken.
    pub(super) fn timed_out(&self) -> bool {
        self.timeouts_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_TIMEOUTS_IN_A_ROW
    }
}

/// The highest generation that was reported as broken.
#[derive(Clone)]
pub(super) struct Reports(Arc<watch::Sender<u64>>);

impl Reports {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(super) fn broken(&self, generation: u64) {
        self.0.send_if_modified(|broken| {
            let news = *broken < generation;
            *broken = generation.max(*broken);
            news
        });
    }

    async fn until_broken(&self, generation: u64) {
        let mut reports = self.0.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = reports.wait_for(|broken| *broken >= generation).await;
    }
}

/// Which of the connections an operation uses.
#[derive(Clone, Copy)]
pub(super) enum Lane {
    /// What requests wait for.
    Main,
    /// What may take long.
    Bulk,
}
