//! What the workers, the services and the faults of one run share.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::losses::Losses;

/// What the services do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    /// The workers work.
    Work,
    /// The workers have stopped; the stores are asked now and then.
    Idle,
    /// The phase is over.
    Over,
}

pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    pub(crate) start: Instant,
    /// Whether what was acknowledged may be lost at a failover, unless it was confirmed.
    pub(crate) may_lose: bool,
    pub(crate) losses: Losses,
    /// The phase, with the number of the part of the run that it belongs to.
    pub(crate) phase: watch::Sender<(u8, Phase)>,
    /// How often the services have been asked to show that all is well.
    pub(crate) probe: watch::Sender<u64>,
    /// How often they have.
    pub(crate) fine: [AtomicU64; 2],
    /// Whether a service has ended with a panic.
    pub(crate) failed: AtomicBool,
    pub(crate) tally: Tally,
    faults: Mutex<Vec<(Duration, String)>>,
}

/// What was answered so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) operations: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// The answers that were wrong, but about what a failover may undo.
    pub(crate) undone: AtomicU64,
    /// The slowest operation, in microseconds.
    pub(crate) slowest: AtomicU64,
}

impl Scene {
    pub(crate) fn new(name: &'static str, seed: u64, may_lose: bool) -> Self {
        Self {
            name,
            seed,
            start: Instant::now(),
            may_lose,
            losses: Losses::none(),
            phase: watch::channel((0, Phase::Work)).0,
            probe: watch::channel(0).0,
            fine: Default::default(),
            failed: AtomicBool::new(false),
            tally: Tally::default(),
            faults: Mutex::default(),
        }
    }

    /// Writes down a fault that begins now.
    pub(crate) fn fault(&self, what: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push((self.start.elapsed(), what));
    }

    /// The faults so far, one a line.
    pub(crate) fn faults(&self) -> String {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = faults
            .iter()
            .map(|(at, what)| format!("  {:9.3} {what}\n", at.as_secs_f64()));
        lines.collect()
    }

    /// Panics, with everything that is known.
    pub(crate) fn wrong(&self, problem: &str, history: &str) -> ! {
        panic!(
            "{} with SOAK_SEED={}, after {:.3} s: {problem}\nthe user's last operations:\n{history}\
             the faults:\n{}",
            self.name,
            self.seed,
            self.start.elapsed().as_secs_f64(),
            self.faults()
        );
    }
}
