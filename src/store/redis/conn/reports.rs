//! Reports of faults on connections to the supervisor, which replaces them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use tokio::sync::watch;

use crate::store::redis::near::tracking::Tracking;

/// What [`Condition::silent_ticks`] is for a silent connection.
const SILENT: u32 = u32::MAX;

/// The condition of a connection that is in use.
#[derive(Default)]
struct Condition {
    lost: AtomicBool,
    /// Whether the connection was given up before it was used.
    discarded: AtomicBool,
    /// The number of ticks for which a reply of the server has been overdue.
    silent_ticks: AtomicU32,
}

/// The latest trouble that was reported.
#[derive(Clone)]
pub(crate) struct Reports(Arc<watch::Sender<Report>>);

/// Reports what happens to one connection.
#[derive(Clone)]
pub(crate) struct Reporter {
    reports: Reports,
    generation: u64,
    condition: Arc<Condition>,
    /// The announcements of changes on the connection, for a near-cache.
    tracking: Option<Tracking>,
}

/// Generations up to these are in trouble.
#[derive(Clone, Copy, Default)]
struct Report {
    suspect: u64,
    lost: u64,
}

impl Condition {
    /// Whether the server has owed a reply for so long that it may be gone.
    fn is_silent(&self) -> bool {
        self.silent_ticks.load(Ordering::Relaxed) == SILENT
    }

    fn record_reply(&self) {
        // Nearly always zero, and then not written: all operations share it.
        if self.silent_ticks.load(Ordering::Relaxed) != 0 {
            self.silent_ticks.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that the server has owed a reply for one more tick; returns whether that makes it silent.
    fn record_silent_tick(&self, max: u32) -> bool {
        let ticks = self.silent_ticks.load(Ordering::Relaxed);
        if ticks == SILENT {
            return false;
        }
        let is_silent = ticks + 1 >= max;
        let next = if is_silent { SILENT } else { ticks + 1 };
        // Fails if a reply has come meanwhile.
        let counted =
            self.silent_ticks
                .compare_exchange(ticks, next, Ordering::Relaxed, Ordering::Relaxed);
        counted.is_ok() && is_silent
    }
}

impl Reports {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Report::default())))
    }

    /// Reports that a new connection may cure a fault of this one.
    fn suspect(&self, generation: u64) {
        self.0.send_if_modified(|report| {
            let news = report.suspect < generation;
            report.suspect = generation.max(report.suspect);
            news
        });
    }

    fn lost(&self, generation: u64) {
        self.0.send_if_modified(|report| {
            let news = report.lost < generation;
            report.lost = generation.max(report.lost);
            report.suspect = generation.max(report.suspect);
            news
        });
    }

    /// Whether this connection was reported as suspect or lost.
    pub(crate) fn is_suspect(&self, generation: u64) -> bool {
        self.0.borrow().suspect >= generation
    }

    /// Waits until this connection is suspect, or lost.
    pub(crate) async fn until_suspect(&self, generation: u64) {
        self.until(|report| report.suspect >= generation).await;
    }

    /// Waits until this connection is lost.
    pub(crate) async fn until_lost(&self, generation: u64) {
        self.until(|report| report.lost >= generation).await;
    }

    async fn until(&self, reached: impl FnMut(&Report) -> bool) {
        let mut reports = self.0.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = reports.wait_for(reached).await;
    }
}

impl Reporter {
    pub(crate) fn new(reports: &Reports, generation: u64, tracking: Option<Tracking>) -> Self {
        Self {
            reports: reports.clone(),
            generation,
            condition: Arc::default(),
            tracking,
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Reports that a new connection may cure a fault of this one.
    pub(crate) fn suspect(&self) {
        if !self.is_discarded() {
            self.reports.suspect(self.generation);
        }
    }

    /// Ends the reports on a connection that is not going to be used.
    pub(crate) fn discard(&self) {
        self.condition.discarded.store(true, Ordering::Relaxed);
        if let Some(tracking) = &self.tracking {
            tracking.lease().end();
        }
    }

    fn is_discarded(&self) -> bool {
        self.condition.discarded.load(Ordering::Relaxed)
    }

    /// Reports that the connection is closed, or must not be used any more.
    pub(crate) fn lost(&self) {
        self.condition.lost.store(true, Ordering::Relaxed);
        self.end_lease();
        if !self.is_discarded() {
            self.reports.lost(self.generation);
        }
    }

    /// Ends the lease on what was read on the connection.
    pub(crate) fn end_lease(&self) {
        if let Some(tracking) = &self.tracking {
            tracking.end();
        }
    }

    /// The announcements of changes on the connection, if there is a near-cache.
    pub(crate) fn tracking(&self) -> Option<&Tracking> {
        self.tracking.as_ref()
    }

    /// Notes that the server has answered.
    pub(crate) fn record_reply(&self) {
        self.condition.record_reply();
    }

    /// Notes that the server has owed a reply for one more tick; returns whether it is silent from now on, which takes
    /// `max` ticks in a row.
    pub(crate) fn record_silent_tick(&self, max: u32) -> bool {
        self.condition.record_silent_tick(max)
    }

    /// Whether the connection is gone, or must not be used any more.
    pub(crate) fn has_lost(&self) -> bool {
        self.condition.lost.load(Ordering::Relaxed)
    }

    /// Whether the server has owed a reply for so long that it may be gone.
    pub(crate) fn is_silent(&self) -> bool {
        self.condition.is_silent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_silent_after_so_many_ticks_in_a_row_without_a_reply() {
        let condition = Condition::default();
        let tick = || condition.record_silent_tick(3);
        assert_eq!([tick(), tick()], [false, false]);
        condition.record_reply();
        assert_eq!([tick(), tick(), tick()], [false, false, true]);
        assert_eq!([tick(), tick()], [false, false], "silent already");
        condition.record_reply();
        assert_eq!([tick(), tick(), tick()], [false, false, true]);
    }
}
