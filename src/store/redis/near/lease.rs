//! For how long what was read on one connection may be served without asking the server.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// What [`Lease::until`] is for a lease that has ended for good.
const ENDED: u64 = 0;
/// What it is for a lease that has never held.
const UNBEGUN: u64 = 1;

/// The lease of one connection, on which the server announces changes.
///
/// Announcements and replies come in one order. So once the reply to a *keyed* read has arrived, every change has been
/// announced that was acknowledged before that read was sent: what is in the cache was right at that moment, at least.
/// The lease runs from that moment. A read without a key will not do: a node of a cluster that has lost its slots
/// answers `PING`.
///
/// Times are microseconds since a moment that all calls share.
pub(crate) struct Lease {
    until: AtomicU64,
    /// When the connection has to be replaced.
    use_by: AtomicU64,
    /// What the server's clock shows is at most the time plus this, in microseconds since the Unix epoch.
    latest: AtomicI64,
    /// What it shows is at least the time plus this.
    earliest: AtomicI64,
}

/// What a renewal has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The lease has not held before.
    Began,
    Renewed,
    /// It has held before, and did not hold just now.
    Lapsed,
    /// It has ended for good.
    Ended,
}

/// Bounds of what the server's clock shows, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerTime {
    pub(crate) earliest: u64,
    pub(crate) latest: u64,
}

impl Lease {
    /// A lease that has not begun.
    pub(crate) fn new() -> Self {
        Self {
            until: AtomicU64::new(UNBEGUN),
            use_by: AtomicU64::new(u64::MAX),
            latest: AtomicI64::new(0),
            earliest: AtomicI64::new(0),
        }
    }

    /// Renews the lease, after the reply to a keyed read: it ends `max_staleness` after the read was sent. `time` is
    /// what the server's clock showed in between. A lease that has [ended](Self::end) stays so.
    ///
    pub(crate) fn renew(
        &self,
        sent: u64,
        answered: u64,
        time: u64,
        max_staleness: Duration,
    ) -> Renewal {
        let latest = time as i64 - sent as i64;
        self.latest.store(latest, Ordering::Relaxed);
        // Unless the server's clock was set back, the higher one of two lower bounds is the better.
        if self.earliest.load(Ordering::Relaxed) > latest {
            self.earliest.store(0, Ordering::Relaxed);
        }
        self.note_time(answered, time);
        let end = sent.saturating_add(max_staleness.as_micros() as u64);
        let later = |until: u64| (until != ENDED).then_some(until.max(end));
        let before = self
            .until
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
        match before {
            Err(_) => Renewal::Ended,
            Ok(UNBEGUN) => Renewal::Began,
            Ok(until) if until <= answered => Renewal::Lapsed,
            Ok(_) => Renewal::Renewed,
        }
    }

    /// Notes the server's time in a reply that arrived at this moment: what is served from now on is not earlier.
    pub(crate) fn note_time(&self, answered: u64, time: u64) {
        let earliest = time as i64 - answered as i64;
        self.earliest.fetch_max(earliest, Ordering::Relaxed);
    }

    /// Lets the lease hold no longer than until this moment, however often it is renewed.
    pub(crate) fn use_by(&self, end: u64) {
        self.use_by.store(end, Ordering::Relaxed);
    }

    /// Ends the lease for good. Returns whether it had begun and not ended.
    pub(crate) fn end(&self) -> bool {
        !matches!(self.until.swap(ENDED, Ordering::AcqRel), ENDED | UNBEGUN)
    }

    /// Whether the lease has ended for good.
    pub(crate) fn has_ended(&self) -> bool {
        self.until.load(Ordering::Acquire) == ENDED
    }

    /// The time of the server's clock, if the lease holds at this moment.
    pub(crate) fn at(&self, now: u64) -> Option<ServerTime> {
        let until = self.until.load(Ordering::Acquire);
        let until = until.min(self.use_by.load(Ordering::Relaxed));
        (now < until).then(|| {
            let time = |offset: &AtomicI64| {
                let offset = offset.load(Ordering::Relaxed);
                offset.saturating_add_unsigned(now).max(0) as u64
            };
            ServerTime {
                earliest: time(&self.earliest),
                latest: time(&self.latest),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALENESS: Duration = Duration::from_micros(300);

    fn is_valid(lease: &Lease, now: u64) -> bool {
        lease.at(now).is_some()
    }

    #[test]
    fn a_lease_begins_with_the_first_renewal() {
        let lease = Lease::new();
        assert!(!is_valid(&lease, 1) && !lease.has_ended());
    }

    #[test]
    fn it_runs_from_the_moment_of_sending() {
        let lease = Lease::new();
        lease.renew(1_000, 1_250, 9_000_000, STALENESS);
        assert!(is_valid(&lease, 1_250) && is_valid(&lease, 1_299));
        assert!(!is_valid(&lease, 1_300));
        // A reply that took longer renews nothing.
        lease.renew(2_000, 2_400, 9_001_000, STALENESS);
        assert!(!is_valid(&lease, 2_400));
    }

    #[test]
    fn a_lease_that_did_not_hold_in_between_has_lapsed() {
        let lease = Lease::new();
        let renew = |sent| lease.renew(sent, sent + 100, 9_000_000, STALENESS);
        // In time, and too late: what counts is when the reply is there.
        let found = [renew(1_000), renew(1_199), renew(1_399)];
        assert_eq!(found, [Renewal::Began, Renewal::Renewed, Renewal::Lapsed]);
        assert_eq!([lease.end(), lease.end()], [true, false]);
        assert!(renew(3_000) == Renewal::Ended && !Lease::new().end());
    }

    #[test]
    fn an_older_read_that_is_answered_later_does_not_shorten_it() {
        let lease = Lease::new();
        lease.renew(2_000, 2_001, 9_000_000, STALENESS);
        lease.renew(1_900, 2_002, 9_000_000, STALENESS);
        assert!(is_valid(&lease, 2_299));
    }

    #[test]
    fn an_ended_lease_is_not_renewed() {
        let lease = Lease::new();
        lease.renew(1_000, 1_001, 9_000_000, STALENESS);
        lease.end();
        assert!(!is_valid(&lease, 1_001) && lease.has_ended());
        lease.renew(1_100, 1_101, 9_000_000, STALENESS);
        assert!(!is_valid(&lease, 1_101) && lease.has_ended());
    }

    #[test]
    fn an_outdated_connection_is_not_served_from() {
        let lease = Lease::new();
        lease.use_by(1_100);
        lease.renew(1_000, 1_001, 9_000_000, STALENESS);
        assert!(is_valid(&lease, 1_099) && !is_valid(&lease, 1_100));
        lease.use_by(1_200);
        assert!(is_valid(&lease, 1_199) && !is_valid(&lease, 1_200));
    }

    #[test]
    fn the_time_of_the_server_lies_between_sending_and_answer() {
        let lease = Lease::new();
        lease.renew(1_000, 1_200, 9_000_000, STALENESS);
        let time = lease.at(1_250);
        let (earliest, latest) = (9_000_050, 9_000_250);
        assert_eq!(time, Some(ServerTime { earliest, latest }));
    }

    #[test]
    fn a_slow_reply_does_not_turn_the_time_back_and_a_clock_that_is_set_back_does() {
        let lease = Lease::new();
        let earliest = |now| lease.at(now).map(|time| time.earliest);
        lease.renew(1_000, 1_010, 9_000_000, STALENESS);
        lease.renew(1_100, 1_200, 9_000_110, STALENESS);
        assert_eq!(earliest(1_200), Some(9_000_190));
        lease.renew(1_200, 1_210, 8_000_000, STALENESS);
        assert_eq!(earliest(1_210), Some(8_000_000));
    }
}
