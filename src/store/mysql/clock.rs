//! A client's estimate of the server's clock.

use tokio::time::Instant;

/// A lower bound of a server's clock, in milliseconds since the Unix epoch.
///
/// A write carries its deadline by the server's clock. Because the bound is a lower one, that deadline is never later
/// than the moment at which the caller gets the timeout.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    millis: i64,
    at: Instant,
}

impl Clock {
    /// A clock that read `millis` at some moment before now.
    pub(super) fn new(millis: i64) -> Self {
        Self {
            millis,
            at: Instant::now(),
        }
    }

    /// The lower bound of the server's clock at this moment.
    pub(super) fn at_least(&self, moment: Instant) -> i64 {
        self.millis
            .saturating_add(millis(moment.saturating_duration_since(self.at)))
    }

    /// Updates the bound with a reading that was requested at `asked`. The higher bound wins, unless it cannot be right
    /// because the server's clock was set back.
    pub(super) fn learn(&mut self, reading: i64, asked: Instant) {
        let new = Self::new(reading);
        let known = self.at_least(new.at);
        // Readings are truncated to milliseconds.
        let most = reading.saturating_add(millis(new.at - asked) + 2);
        if !(reading..=most).contains(&known) {
            *self = new;
        }
    }
}

fn millis(duration: std::time::Duration) -> i64 {
    super::record::span(duration)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_higher_bound_counts() {
        let mut clock = Clock::new(5000);
        advance(SECOND).await;
        assert_eq!(clock.at_least(Instant::now() + SECOND), 7000);
        // A reply that was slow.
        let asked = Instant::now() - SECOND;
        clock.learn(5500, asked);
        assert_eq!(clock.at_least(Instant::now()), 6000);
        // One that was faster than that of the first reading.
        clock.learn(6100, Instant::now());
        assert_eq!(clock.at_least(Instant::now()), 6100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_is_believed() {
        let mut clock = Clock::new(5000);
        let asked = Instant::now();
        advance(SECOND).await;
        clock.learn(1000, asked);
        assert_eq!(clock.at_least(Instant::now()), 1000);
    }
}
