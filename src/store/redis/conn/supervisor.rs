//! The task that maintains the connection of a link.
//!
//! The supervisor opens a connection, and replaces it in three cases:
//!
//! - The connection is reported as *lost*.
//! - The connection is reported as *suspect*: an operation failed in a way that a new connection may cure, or the
//!   server is silent.
//! - The connection approaches its maximum age, because its address may lead to another server by then. With a
//!   near-cache, it stays in use if the new one shows that the address leads to the same run of the server.
//!
//! A connection that is not lost stays in use until its replacement is open. The exception is a silent connection:
//! operations stop using it once an attempt to replace it has failed. Operations in flight on a replaced connection
//! complete there. The links to one server connect one at a time, and a link that waits for its turn keeps its
//! connection.
//!
//! While the first attempt to replace a lost connection runs, operations wait for it within their deadline. Once an
//! attempt has failed, operations fail at once until an attempt succeeds.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, MutexGuard, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    Connect,
    link_config::LinkConfig,
    live::{Live, STABLE, State},
    reports::{Reporter, Reports},
};
use crate::{
    Error, ErrorKind, jitter,
    store::{
        admission::Admission,
        redis::near::{Near, tracking::Tracking},
    },
};

const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(200);
/// The interval at which a link that waits for its turn to connect extends the use of its old connection.
const TICK: Duration = Duration::from_millis(250);

/// Maintains the connection of one link.
pub(crate) struct Supervisor<C> {
    pub(crate) source: C,
    pub(crate) config: Arc<LinkConfig>,
    /// Held while connecting, so that the links to one server connect one at a time.
    pub(crate) dialing: Arc<Mutex<()>>,
    /// The longest time for which a command on this link may block the connection.
    pub(crate) max_block: Duration,
    /// What is filled by lookups on this link.
    pub(crate) near: Option<Arc<Near>>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) reports: Reports,
}

/// The wait before the next attempt to connect: random (full jitter), up to a limit that doubles with each attempt
/// until it reaches a maximum.
struct Backoff(Duration);

impl<C: Connect> Supervisor<C> {
    pub(crate) async fn run(self) {
        let mut backoff = Backoff(FIRST_BACKOFF);
        let mut in_use = 0;
        let mut since = Instant::now();
        let mut admission = Arc::new(match self.config.sheds_load {
            true => Admission::new(self.config.deadline),
            false => Admission::unlimited(),
        });
        // Whether the attempt replaces a connection that is lost or suspect.
        let mut in_trouble = false;
        for generation in 1.. {
            match self.connect(generation, &admission).await {
                Ok(live) if !in_trouble && self.keeps(in_use, &live) => live.discard(),
                Ok(live) => {
                    self.use_on(&live);
                    admission = Arc::clone(&live.admission);
                    let last = self.state.send_replace(State::Up(Arc::new(live)));
                    last.end_lease();
                    if in_trouble {
                        self.config.status.reconnected();
                    }
                    (in_use, since) = (generation, Instant::now());
                }
                Err(error) => {
                    self.config.status.note(&error);
                    if !self.report_and_continue(error) || self.reports.is_suspect(in_use) {
                        in_trouble = in_use > 0;
                        sleep(backoff.next()).await;
                        continue;
                    }
                }
            }
            in_trouble = self.until_due(in_use).await;
            if !in_trouble {
                backoff.reset();
                continue;
            }
            let mut pause = Duration::ZERO;
            if since.elapsed() < STABLE {
                pause = backoff.next();
            } else {
                backoff.reset();
            }
            // A suspect connection stays in use during the pause.
            let lost = self.reports.until_lost(in_use);
            if timeout(pause, lost).await.is_ok() {
                self.note_loss();
                self.state.send_replace(State::Connecting);
                sleep(pause).await;
            }
        }
    }

    /// Waits until the connection has to be replaced. Returns `true` if it is lost or suspect, `false` if it is only
    /// old.
    async fn until_due(&self, in_use: u64) -> bool {
        let trouble = self.reports.until_suspect(in_use);
        match self.source.max_age(&self.config) {
            // This leaves time to connect before the maximum age. Jitter spreads the attempts of many processes.
            Some(age) => {
                let wait = age * 3 / 4 - jitter::up_to(age / 8);
                timeout(wait, trouble).await.is_ok()
            }
            None => {
                trouble.await;
                true
            }
        }
    }

    /// Handles a failed attempt to connect. Keeps the current connection in use, unless it is lost or silent, and
    /// returns whether there is one to use. A silent connection stays in use as long as the address of the server is
    /// unknown.
    fn report_and_continue(&self, error: Error) -> bool {
        let is_unknown = self.source.address().is_none();
        let mut works = false;
        self.state.send_if_modified(|state| {
            works = match state {
                State::Up(live) => {
                    self.use_on(live);
                    !live.is_lost() && (!live.is_silent() || is_unknown)
                }
                State::Connecting | State::Down(_) => false,
            };
            if !works {
                state.end_lease();
                *state = State::Down(error);
            }
            true
        });
        works
    }

    /// Keeps the connection in use in place of a new one, if both lead to the same run of a server: a near-cache keeps
    /// what was read on it.
    fn keeps(&self, in_use: u64, new: &Live) -> bool {
        let run_id = &new.connected.run_id;
        let is_known = run_id.as_ref().is_some_and(|run_id| !run_id.is_empty());
        if self.near.is_none() || !is_known || self.reports.is_suspect(in_use) {
            return false;
        }
        match &*self.state.borrow() {
            State::Up(live) if live.connected.run_id == *run_id && live.holds_lease() => {
                self.use_on(live);
                true
            }
            _ => false,
        }
    }

    /// Allows operations to use the connection until the latest time at which the next attempt to replace it ends.
    fn use_on(&self, live: &Live) {
        if let Some(max_age) = self.source.max_age(&self.config) {
            live.use_for(max_age + self.config.connect_timeout);
        }
    }

    fn note_loss(&self) {
        if let State::Up(live) = &*self.state.borrow() {
            let address = &live.connected.address;
            let message = format!("lost the connection to the primary, at {address}");
            let error = Error::new(ErrorKind::Unavailable, message);
            self.config.status.note(&error);
        }
    }

    /// Waits until no other link to the server is connecting. During the wait operations may go on to use the old
    /// connection, because the attempts of other links may take as long as this link's own.
    async fn turn(&self) -> MutexGuard<'_, ()> {
        let mut turn = pin!(self.dialing.lock());
        loop {
            let waited = timeout(TICK, &mut turn).await;
            if let State::Up(live) = &*self.state.borrow()
                && self.source.max_age(&self.config).is_some()
            {
                live.keep_for(self.config.connect_timeout + 2 * TICK);
            }
            if let Ok(turn) = waited {
                return turn;
            }
        }
    }

    /// Connects. `last` is the admission of the connection that is replaced.
    async fn connect(&self, generation: u64, last: &Admission) -> Result<Live, Error> {
        let _turn = self.turn().await;
        let reporter = Reporter::new(
            &self.reports,
            generation,
            self.near.as_ref().map(Tracking::new),
        );
        let connecting = self.source.connect(&self.config, &reporter, self.max_block);
        let limit = self.config.connect_timeout;
        let connected = match timeout(limit, connecting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                match self.source.address() {
                    Some(address) => {
                        format!("no connection to Redis within {limit:?}, at {address}")
                    }
                    None => format!("no sentinel said within {limit:?} who the master is"),
                },
            )),
        };
        match connected {
            Ok(connected) => {
                let admission = Arc::new(last.after(connected.round_trip));
                Ok(Live::new(connected, reporter, admission))
            }
            Err(error) => {
                // Its end says nothing of the connection in use.
                reporter.discard();
                Err(error)
            }
        }
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = jitter::up_to(self.0);
        self.0 = (self.0 * 2).min(MAX_BACKOFF);
        wait
    }

    fn reset(&mut self) {
        self.0 = FIRST_BACKOFF;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::store::redis::{conn::connected::Connected, wire::address::Address};

    /// An unreachable server whose connections have a maximum age.
    struct Aging;

    impl Connect for Aging {
        async fn connect(
            &self,
            _: &Arc<LinkConfig>,
            _: &Reporter,
            _: Duration,
        ) -> Result<Connected, Error> {
            pending().await
        }

        fn address(&self) -> Option<Address> {
            None
        }

        fn max_age(&self, config: &LinkConfig) -> Option<Duration> {
            Some(config.max_connection_age)
        }
    }

    /// With the default maximum age of 3 s, at least 0.75 s are left to connect.
    #[tokio::test(start_paused = true)]
    async fn a_connection_is_due_when_it_has_reached_three_quarters_of_its_greatest_age() {
        let config = LinkConfig::for_test();
        let age = config.max_connection_age;
        let supervisor = Supervisor {
            source: Aging,
            config,
            dialing: Arc::default(),
            max_block: Duration::ZERO,
            near: None,
            state: watch::Sender::new(State::Connecting),
            reports: Reports::new(),
        };
        for _ in 0..1000 {
            let since = Instant::now();
            assert!(!supervisor.until_due(1).await);
            let due = since.elapsed();
            // Timers have a resolution of a millisecond.
            let latest = age * 3 / 4 + Duration::from_millis(1);
            assert!(due >= age / 2 && due <= latest, "{due:?}");
        }
        Reporter::new(&supervisor.reports, 1, None).suspect();
        assert!(supervisor.until_due(1).await);
    }

    #[test]
    fn backoff_has_full_jitter_and_a_limit() {
        let mut backoff = Backoff(FIRST_BACKOFF);
        let mut waits = Vec::new();
        for attempt in 0..1000 {
            let limit = (FIRST_BACKOFF * 2_u32.pow(attempt.min(10))).min(MAX_BACKOFF);
            let wait = backoff.next();
            assert!(wait <= limit, "{wait:?} before attempt {attempt}");
            waits.push(wait);
        }
        assert!(waits.iter().any(|wait| *wait < MAX_BACKOFF / 10));
        assert!(waits.iter().any(|wait| *wait > MAX_BACKOFF * 9 / 10));
        backoff.reset();
        assert!(backoff.next() <= FIRST_BACKOFF);
    }
}
