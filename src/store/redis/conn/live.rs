//! The connection in use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{connected::Connected, reports::Reporter};
use crate::{
    Error,
    store::{
        admission::Admission,
        redis::near::{lease::Lease, tracking::Tracking},
    },
};

/// The age below which a connection in trouble is replaced only after a pause.
pub(crate) const STABLE: Duration = Duration::from_secs(1);

/// The state of a link, as operations see it.
pub(crate) enum State {
    /// An attempt to connect runs, and none has failed since the last connection was lost.
    Connecting,
    Up(Arc<Live>),
    /// At least one attempt has failed. Further attempts follow.
    Down(Error),
}

/// A connection without a known fault.
pub(crate) struct Live {
    pub(crate) connected: Connected,
    /// When the connection was opened.
    pub(crate) since: SystemTime,
    made: Instant,
    /// The age, in milliseconds, from which operations do not use the connection until the next attempt to replace it
    /// has ended; 0 for no such age.
    use_by: AtomicU64,
    /// Admits lookups.
    pub(crate) admission: Arc<Admission>,
    reporter: Reporter,
}

impl State {
    /// Returns the connection or the error for an operation that knows all generations up to `broken` to be unusable;
    /// `None` if the operation has to wait.
    pub(crate) fn verdict(&self, broken: u64) -> Option<Result<Arc<Live>, Error>> {
        match self {
            Self::Up(live)
                if live.generation() > broken && !live.is_lost() && !live.is_outdated() =>
            {
                Some(Ok(Arc::clone(live)))
            }
            Self::Up(_) | Self::Connecting => None,
            Self::Down(error) => Some(Err(error.clone())),
        }
    }

    /// Ends the lease on what was read on the connection, because it is not in use any more.
    pub(crate) fn end_lease(&self) {
        if let Self::Up(live) = self {
            live.reporter.end_lease();
        }
    }
}

impl Live {
    /// Creates the record of a new connection, whose faults go to `reporter`.
    pub(crate) fn new(connected: Connected, reporter: Reporter, admission: Arc<Admission>) -> Self {
        Self {
            connected,
            since: SystemTime::now(),
            made: Instant::now(),
            use_by: AtomicU64::new(0),
            admission,
            reporter,
        }
    }

    /// The generation of the connection: a newer connection has a higher one.
    pub(crate) fn generation(&self) -> u64 {
        self.reporter.generation()
    }

    /// Marks the connection as lost: no operation uses it any more, and replies that arrive later are discarded.
    pub(crate) fn give_up(&self) {
        self.reporter.lost();
    }

    /// Gives up a connection that was never used.
    pub(crate) fn discard(&self) {
        self.reporter.discard();
    }

    /// The lease on what is read on the connection, if there is a near-cache.
    pub(crate) fn lease(&self) -> Option<&Arc<Lease>> {
        self.reporter.tracking().map(Tracking::lease)
    }

    /// Whether what is read on the connection may be served without asking.
    pub(crate) fn holds_lease(&self) -> bool {
        !self.is_lost() && self.reporter.tracking().is_some_and(Tracking::holds)
    }

    /// Reports that another connection may do better.
    pub(crate) fn suspect(&self) {
        self.reporter.suspect();
    }

    /// Whether the connection is lost: closed, or not to be used any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.reporter.has_lost()
    }

    /// Whether the connection is at least [`STABLE`] old.
    pub(crate) fn is_stable(&self) -> bool {
        self.made.elapsed() >= STABLE
    }

    /// Allows operations to use the connection for this time from now on.
    pub(crate) fn use_for(&self, time: Duration) {
        let age = self.age_in(time);
        self.use_by.store(age, Ordering::Relaxed);
        self.limit_lease(time);
    }

    /// Like [`use_for`](Self::use_for), but never shortens the time, and does not revive an outdated connection.
    pub(crate) fn keep_for(&self, time: Duration) {
        if !self.is_outdated() {
            let age = self.age_in(time);
            if self.use_by.fetch_max(age, Ordering::Relaxed) < age {
                self.limit_lease(time);
            }
        }
    }

    fn limit_lease(&self, time: Duration) {
        if let Some(tracking) = self.reporter.tracking() {
            tracking.use_for(time);
        }
    }

    /// The age that the connection will have after this time, in milliseconds.
    fn age_in(&self, time: Duration) -> u64 {
        let age = (self.made.elapsed() + time).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX)
    }

    /// Whether operations must not use the connection because it should have been replaced by now. That happens when
    /// the runtime of the store did not run for a while, for example because the process was suspended.
    fn is_outdated(&self) -> bool {
        match self.use_by.load(Ordering::Relaxed) {
            0 => false,
            use_by => self.made.elapsed() > Duration::from_millis(use_by),
        }
    }

    /// Notes the time in a reply that has just arrived, in microseconds.
    pub(crate) fn note_time(&self, time: u64) {
        self.connected.clock.note(time);
        if let Some(tracking) = self.reporter.tracking() {
            tracking.note_time(time);
        }
    }

    /// Records a reply of the server.
    pub(crate) fn record_reply(&self) {
        self.reporter.record_reply();
    }

    /// Whether a reply of the server is overdue for so long that the server may be gone.
    pub(crate) fn is_silent(&self) -> bool {
        self.reporter.is_silent()
    }
}
