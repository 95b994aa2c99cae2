//! Keeps a connection to the server.
//!
//! A task of its own connects, and connects anew whenever the connection in use is reported: as *lost*, or as
//! *suspect*, because an operation failed in a way that another connection may cure, or the server is silent. It also
//! does so when the connection has reached its greatest age, because the address may lead to another server by then. A
//! connection that is not lost stays in use until the next one is there, or an attempt has failed and it is silent;
//! what is in flight on a connection that is replaced is finished there. The links to one server connect in turns, and
//! a connection stays in use while its link waits. While the first attempt to replace a lost one runs, operations wait
//! for it within their deadline; once an attempt has failed, they fail at once until one succeeds.

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
use crate::{Error, ErrorKind, jitter};

const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(200);
/// How often a link that waits for its turn to connect keeps its old connection in use.
const TICK: Duration = Duration::from_millis(250);

/// The task that connects.
pub(crate) struct Supervisor<C> {
    pub(crate) source: C,
    pub(crate) config: Arc<LinkConfig>,
    /// Held while connecting: the links to one server take turns.
    pub(crate) dialing: Arc<Mutex<()>>,
    /// How long commands on this link may block the connection.
    pub(crate) max_block: Duration,
    pub(crate) state: watch::Sender<State>,
    pub(crate) reports: Reports,
}

/// How long to wait before the next attempt to connect: twice as long each time, up to a limit, with full jitter.
struct Backoff(Duration);

impl<C: Connect> Supervisor<C> {
    pub(crate) async fn run(self) {
        let mut backoff = Backoff(FIRST_BACKOFF);
        let mut in_use = 0;
        let mut since = Instant::now();
        // Whether the attempt replaces a connection that is lost or suspect.
        let mut in_trouble = false;
        for generation in 1.. {
            match self.connect(generation).await {
                Ok(live) => {
                    self.use_on(&live);
                    self.state.send_replace(State::Up(Arc::new(live)));
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
            // While it is only suspect, it is in use.
            let lost = self.reports.until_lost(in_use);
            if timeout(pause, lost).await.is_ok() {
                self.note_loss();
                self.state.send_replace(State::Connecting);
                sleep(pause).await;
            }
        }
    }

    /// Waits until another connection is needed; returns whether this one is in trouble, and not only old.
    async fn until_due(&self, in_use: u64) -> bool {
        let trouble = self.reports.until_suspect(in_use);
        match self.source.max_age(&self.config) {
            // There has to be time to connect, and many processes should not do so at once.
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

    /// After an attempt that failed: leaves the connection in use that there is, unless it is lost or silent; returns
    /// whether there is one. A silent one stays in use if it is not known where to connect to.
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
                *state = State::Down(error);
            }
            true
        });
        works
    }

    /// Lets operations use the connection until the next attempt to replace it must have ended.
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

    /// Waits until no other link to the server connects. Attempts of others may last as long as our own, so the wait
    /// does not count for how long operations may use the old connection.
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

    async fn connect(&self, generation: u64) -> Result<Live, Error> {
        let _turn = self.turn().await;
        let reporter = Reporter::new(&self.reports, generation);
        let connecting = self.source.connect(&self.config, &reporter, self.max_block);
        let limit = self.config.connect_timeout;
        match timeout(limit, connecting).await {
            Ok(outcome) => outcome.map(|connected| Live::new(connected, reporter)),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                match self.source.address() {
                    Some(address) => {
                        format!("no connection to Redis within {limit:?}, at {address}")
                    }
                    None => format!("no sentinel said within {limit:?} who the master is"),
                },
            )),
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

    /// A server whose connections age, and that cannot be reached.
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

    /// With the default age of 3 s that leaves a new connection 0.75 s at the least.
    #[tokio::test(start_paused = true)]
    async fn a_connection_is_due_when_it_has_reached_three_quarters_of_its_greatest_age() {
        let config = LinkConfig::for_test();
        let age = config.max_connection_age;
        let supervisor = Supervisor {
            source: Aging,
            config,
            dialing: Arc::default(),
            max_block: Duration::ZERO,
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
        Reporter::new(&supervisor.reports, 1).suspect();
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
