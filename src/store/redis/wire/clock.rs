//! A lower bound of a server's clock.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::Time;

/// The server is asked again after so long without a reply: its clock may have drifted, or have been set.
const MAX_AGE: Duration = Duration::from_secs(10);

/// A lower bound of a server's clock, from the times that it has told on one connection.
///
/// When such a reply is there, the server's clock shows at least the time in it, and goes on at the pace of ours. A
/// bound that is too low, because the reply was slow, costs a write some of its time; one that is too high would let it
/// happen after its caller was told that it failed.
pub(crate) struct ServerClock {
    started: Instant,
    /// What the server's clock showed at `started`, at least; in microseconds since the Unix epoch.
    then: AtomicI64,
    /// When that was noted, in microseconds since `started`; 0 for never.
    noted: AtomicU64,
}

impl ServerClock {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            then: AtomicI64::new(0),
            noted: AtomicU64::new(0),
        }
    }

    /// Notes the time in a reply that has just arrived, in microseconds. The latest one counts, whatever it is: the
    /// server's clock may have been set back.
    pub(crate) fn note(&self, time: u64) {
        let elapsed = self.since_started(Instant::now());
        self.then.store(time as i64 - elapsed as i64, Relaxed);
        self.noted.store(elapsed.max(1), Relaxed);
    }

    /// Whether the server has told the time lately.
    pub(crate) fn is_known(&self) -> bool {
        let noted = self.noted.load(Relaxed);
        let age = self.since_started(Instant::now()).saturating_sub(noted);
        noted != 0 && age <= MAX_AGE.as_micros() as u64
    }

    /// What the server's clock will show at this moment, at least, in microseconds.
    pub(crate) fn at(&self, moment: Instant) -> u64 {
        let then = self.then.load(Relaxed);
        let at = then.saturating_add_unsigned(self.since_started(moment));
        at.max(0) as u64
    }

    fn since_started(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.started).as_micros() as u64
    }
}

/// The answer of `TIME` in microseconds.
pub(crate) fn micros((seconds, micros): Time) -> u64 {
    seconds * 1_000_000 + micros
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[tokio::test(start_paused = true)]
    async fn the_time_in_a_reply_goes_on() {
        let clock = ServerClock::new();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!clock.is_known());
        clock.note(1000 * SECOND);
        tokio::time::advance(Duration::from_secs(2)).await;
        let in_three_seconds = Instant::now() + Duration::from_secs(3);
        assert_eq!(clock.at(in_three_seconds), 1005 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_may_be_set_either_way() {
        let clock = ServerClock::new();
        for time in [1000, 10, 2000] {
            clock.note(time * SECOND);
            assert_eq!(clock.at(Instant::now()), time * SECOND);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_time_does_not_count() {
        let clock = ServerClock::new();
        clock.note(1000 * SECOND);
        tokio::time::advance(MAX_AGE).await;
        assert!(clock.is_known());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!clock.is_known());
    }
}
