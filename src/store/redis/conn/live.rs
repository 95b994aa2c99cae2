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
use crate::Error;

/// A connection that is reported sooner than this is not replaced without a pause.
pub(crate) const STABLE: Duration = Duration::from_secs(1);

/// The state of the connection, for operations.
pub(crate) enum State {
    /// An attempt runs, and none has failed since the last connection was lost.
    Connecting,
    Up(Arc<Live>),
    /// At least one attempt has failed; more are made.
    Down(Error),
}

/// A connection without a known fault.
pub(crate) struct Live {
    pub(crate) connected: Connected,
    /// When it was made.
    pub(crate) since: SystemTime,
    made: Instant,
    /// The age, in milliseconds, after which operations do not use it until there has been an attempt to replace it; 0
    /// for none.
    use_by: AtomicU64,
    reporter: Reporter,
}

impl State {
    /// What an operation gets that knows generations up to `broken` to be so; `None`: it has to wait.
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
}

impl Live {
    /// The connection that this reporter reports on.
    pub(crate) fn new(connected: Connected, reporter: Reporter) -> Self {
        Self {
            connected,
            since: SystemTime::now(),
            made: Instant::now(),
            use_by: AtomicU64::new(0),
            reporter,
        }
    }

    /// The later the connection was made, the higher.
    pub(crate) fn generation(&self) -> u64 {
        self.reporter.generation()
    }

    /// Forbids to use it any more; answers that are on their way do not count.
    pub(crate) fn give_up(&self) {
        self.reporter.lost();
    }

    /// Reports that another connection may do better.
    pub(crate) fn suspect(&self) {
        self.reporter.suspect();
    }

    /// Whether it is gone, or must not be used any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.reporter.has_lost()
    }

    /// Whether it is older than a short time.
    pub(crate) fn is_stable(&self) -> bool {
        self.made.elapsed() >= STABLE
    }

    /// Lets operations use it for so long from now on.
    pub(crate) fn use_for(&self, time: Duration) {
        let age = self.age_in(time);
        self.use_by.store(age, Ordering::Relaxed);
    }

    /// The same, unless operations may use it for longer, or must not use it any more.
    pub(crate) fn keep_for(&self, time: Duration) {
        if !self.is_outdated() {
            let age = self.age_in(time);
            self.use_by.fetch_max(age, Ordering::Relaxed);
        }
    }

    /// Its age in so long from now, in milliseconds.
    fn age_in(&self, time: Duration) -> u64 {
        let age = (self.made.elapsed() + time).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX)
    }

    /// Whether it should have been replaced by now, but the runtime of the store has rested, as that of a suspended
    /// process does.
    fn is_outdated(&self) -> bool {
        match self.use_by.load(Ordering::Relaxed) {
            0 => false,
            use_by => self.made.elapsed() > Duration::from_millis(use_by),
        }
    }

    /// Notes that the server has answered.
    pub(crate) fn record_reply(&self) {
        self.reporter.record_reply();
    }

    /// Whether the server has owed a reply for so long that it may be gone.
    pub(crate) fn is_silent(&self) -> bool {
        self.reporter.is_silent()
    }
}
