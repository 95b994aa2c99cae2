//! Keeps a connection to the server.
//!
//! A task of its own connects, and connects anew whenever the connection of the current *generation* is
//! reported: as *lost*, or as *suspect*, because an operation failed in a way that another connection may
//! cure, or a few operations in a row got no answer. A suspect connection stays in use until the next one is
//! there, or an attempt has failed and it does not answer either. While the first attempt to replace a lost one
//! runs, operations wait for it within their deadline; once an attempt has failed, they fail at once until one succeeds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    link::LinkConfig,
    topology::{Connected, Source},
};
use crate::{Error, ErrorKind};

/// So many unanswered operations in a row make a connection suspect: a network that drops packets
/// silently shows no error.
const MAX_TIMEOUTS_IN_A_ROW: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(200);
/// A connection that is reported sooner than this is not replaced without a pause.
const STABLE: Duration = Duration::from_secs(1);

/// The task that connects.
pub(super) struct Supervisor {
    pub(super) source: Source,
    pub(super) config: Arc<LinkConfig>,
    pub(super) state: watch::Sender<State>,
    pub(super) reports: Reports,
}

/// What operations need to know of the connection.
pub(super) enum State {
    /// An attempt runs, and none has failed since the last connection was lost.
    Connecting,
    Up(Arc<Live>),
    /// At least one attempt has failed; more are made.
    Down(Error),
}

/// A connection that works, as far as is known.
pub(super) struct Live {
    pub(super) generation: u64,
    pub(super) connected: Connected,
    lost: Arc<AtomicBool>,
    pub(super) silence: Silence,
}

/// How many operations in a row got no answer.
#[derive(Default)]
pub(super) struct Silence(AtomicU32);

/// The latest trouble that was reported.
#[derive(Clone)]
pub(super) struct Reports(Arc<watch::Sender<Report>>);

/// Reports trouble of one connection.
#[derive(Clone)]
pub(super) struct Reporter {
    reports: Reports,
    generation: u64,
    lost: Arc<AtomicBool>,
}

/// Generations up to these are in trouble.
#[derive(Clone, Copy, Default)]
struct Report {
    suspect: u64,
    lost: u64,
}

impl Supervisor {
    pub(super) async fn run(self) {
        let mut backoff = FIRST_BACKOFF;
        let mut again = false;
        for generation in 1.. {
            let lost = Arc::new(AtomicBool::new(false));
            match self.connect(generation, &lost).await {
                Ok(connected) => {
                    let since = Instant::now();
                    let address = connected.address.clone();
                    self.state.send_replace(State::Up(Arc::new(Live {
                        generation,
                        connected,
                        lost,
                        silence: Silence::default(),
                    })));
                    if again {
                        self.config.status.reconnected();
                    }
                    again = true;
                    self.reports
                        .until(|report| report.suspect >= generation)
                        .await;
                    let pause = if since.elapsed() < STABLE {
                        backoff
                    } else {
                        backoff = FIRST_BACKOFF;
                        Duration::ZERO
                    };
                    // While it is only suspect, it is in use.
                    let lost = self.reports.until(|report| report.lost >= generation);
                    if timeout(pause, lost).await.is_ok() {
                        let message = format!("lost the connection to the primary, at {address}");
                        let error = Error::new(ErrorKind::Unavailable, message);
                        self.config.status.note(&error);
                        self.state.send_replace(State::Connecting);
                        sleep(pause).await;
                    }
                }
                Err(error) => {
                    self.config.status.note(&error);
                    self.fail(error);
                    sleep(backoff).await;
                }
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// After an attempt that failed: leaves a connection in use that was only suspect, if it does answer, or if nobody
    /// knows a better one.
    fn fail(&self, error: Error) {
        let nobody_knows = self.source.address().is_none();
        self.state.send_if_modified(|state| {
            let works = match state {
                State::Up(live) => !live.is_lost() && (live.silence.is_over() || nobody_knows),
                State::Connecting | State::Down(_) => false,
            };
            if !works {
                *state = State::Down(error);
            }
            !works
        });
    }

    async fn connect(&self, generation: u64, lost: &Arc<AtomicBool>) -> Result<Connected, Error> {
        let reporter = Reporter {
            reports: self.reports.clone(),
            generation,
            lost: Arc::clone(lost),
        };
        let connecting = self.source.connect(&self.config, &reporter);
        let limit = self.config.connect_timeout;
        match timeout(limit, connecting).await {
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
        }
    }
}

impl State {
    /// What an operation gets that knows generations up to `broken` to be so; `None`: it has to wait.
    pub(super) fn verdict(&self, broken: u64) -> Option<Result<Arc<Live>, Error>> {
        match self {
            Self::Up(live) if live.generation > broken && !live.is_lost() => {
                Some(Ok(Arc::clone(live)))
            }
            Self::Up(_) | Self::Connecting => None,
            Self::Down(error) => Some(Err(error.clone())),
        }
    }
}

impl Live {
    /// Whether it is gone, or must not be used any more.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Silence {
    /// Notes that an operation was answered.
    pub(super) fn ends(&self) {
        // Nearly always over, and then not written: all operations share it.
        if !self.is_over() {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Notes that so many operations of this deadline waited for an answer in vain; `true` if that makes the
    /// connection suspect.
    pub(super) fn goes_on(&self, waited: Duration, deadline: Duration, operations: u32) -> bool {
        // One that spent its time waiting for the connection says little of it; or each new connection could
        // be suspect before its first answer can be there.
        waited >= deadline / 2
            && self.0.fetch_add(operations, Ordering::Relaxed) + operations >= MAX_TIMEOUTS_IN_A_ROW
    }
}

impl Reports {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Report::default())))
    }

    /// Another connection than this one may do better.
    pub(super) fn suspect(&self, generation: u64) {
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

    async fn until(&self, reached: impl FnMut(&Report) -> bool) {
        let mut reports = self.0.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = reports.wait_for(reached).await;
    }
}

impl Reporter {
    /// Another connection may do better.
    pub(super) fn suspect(&self) {
        self.reports.suspect(self.generation);
    }

    /// The connection is gone, or must not be used any more.
    pub(super) fn lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
        self.reports.lost(self.generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(500);

    #[test]
    fn a_few_long_waits_in_a_row_are_suspect() {
        let silence = Silence::default();
        let long = || silence.goes_on(DEADLINE, DEADLINE, 1);
        assert_eq!([long(), long(), long(), long()], [false, false, true, true]);
        silence.ends();
        assert_eq!([long(), long(), long()], [false, false, true]);
    }

    #[test]
    fn short_waits_are_not() {
        let silence = Silence::default();
        for _ in 0..100 {
            assert!(!silence.goes_on(DEADLINE / 3, DEADLINE, 1));
        }
    }
}
