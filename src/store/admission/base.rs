//! How long the way to a server takes.

use std::time::Duration;

use tokio::time::Instant;

const PERIOD: Duration = Duration::from_secs(10);

/// The delay of the fastest replies of the last one to two periods.
#[derive(Clone, Copy, Default)]
pub(super) struct Base {
    began: Option<Instant>,
    last: Option<Duration>,
    this: Option<Duration>,
}

impl Base {
    /// Returns whether another period begins.
    pub(super) fn record(&mut self, now: Instant, delay: Duration) -> bool {
        let is_over = |began| now.duration_since(began) > PERIOD;
        let is_new = self.began.is_none_or(is_over);
        if is_new {
            (self.began, self.last, self.this) = (Some(now), self.this, None);
        }
        self.this = Some(self.this.map_or(delay, |this| this.min(delay)));
        is_new
    }

    /// Zero if nothing is known.
    pub(super) fn get(&self) -> Duration {
        let base = self.last.into_iter().chain(self.this).min();
        base.unwrap_or_default()
    }
}
