//! What a deployment may lose.
//!
//! Replication is asynchronous: a failover loses what only the old primary had. In such a deployment, what was
//! acknowledged is not sure when it was asked for near a failover: from [`BEFORE`] the fault until [`AFTER`] everybody
//! had agreed on the new primary. Everything else holds without exception, and so do *confirmed* logouts and refreshes
//! at all times.
//!
//! A single server with a log loses nothing that it has acknowledged. Only what was *seen*, after an operation that had
//! failed, may not have been on disk when the server was killed, or be decided when it goes on.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How far a replica may be behind, on a busy machine.
const BEFORE: Duration = Duration::from_secs(3);
/// How long a store may take to learn what everybody else knows.
const AFTER: Duration = Duration::from_secs(3);

/// The times in which a fault may have undone what was not sure.
#[derive(Debug)]
pub(crate) struct Losses(Mutex<Known>);

#[derive(Debug)]
struct Known {
    windows: Vec<(Instant, Instant)>,
    /// Everything until this moment is known.
    until: Instant,
}

impl Losses {
    pub(crate) fn none() -> Self {
        Self(Mutex::new(Known {
            windows: Vec::new(),
            until: Instant::now(),
        }))
    }

    /// A fault between these moments may have undone something.
    pub(crate) fn add(&self, from: Instant, until: Instant) {
        let window = (from.checked_sub(BEFORE).unwrap_or(from), until + AFTER);
        self.with(|known| known.windows.push(window));
    }

    /// All faults until now have been told.
    pub(crate) fn all_until_now(&self) {
        self.with(|known| known.until = Instant::now());
    }

    /// Whether what was asked for at `since` may have been undone when this was seen at `seen`; `None` if that is not
    /// known yet.
    pub(crate) fn may_have_lost(&self, since: Instant, seen: Instant) -> Option<bool> {
        self.with(|known| {
            let near = |&(from, until): &(Instant, Instant)| (from..=until).contains(&since);
            if known.windows.iter().any(near) {
                Some(true)
            } else {
                (seen < known.until).then_some(false)
            }
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
