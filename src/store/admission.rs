//! Admission of operations to a server that may be overloaded.
//!
//! A server that gets more work than it can do answers everything too late, and its work is for nobody. So the number of
//! operations in flight has a *window*, and what does not fit is refused at once. The window follows the delay of the
//! replies, as in Swift (G. Kumar et al., *Swift: Delay is Simple and Effective for Congestion Control in the
//! Datacenter*, SIGCOMM 2020, §3): a delay above a target shrinks it, any other one lets it grow, at most once per round
//! trip. A window below one is a rate, of one operation per `target / window`: thousands of processes may share a server
//! that has less than one operation of each in flight.
//!
//! Each client decides for itself, by the delays that it sees. Where there is no delay, the window is as large as it can
//! be, and costs an operation two atomic additions.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::jitter;

/// A reply may take this part of the deadline. It is a small one: what else is admitted before a longer delay shows should
/// come in time.
const USUAL_PART: u32 = 10;
/// Where the way to the server takes longer, a reply may take this many times as long as the fastest ones, and this part
/// of the deadline at most.
const TIMES_BASE: u32 = 2;
const MAX_USUAL_PART: u32 = 3;
/// The part by which the fastest delay is forgotten with each slower one: the way may have become longer.
const FORGET_PART: u32 = 256;
/// The delay for which the window aims is so many times the usual one.
const TIMES_USUAL: u32 = 2;
/// The bounds of what one round trip does to the window.
const MAX_GROWTH: f64 = 16.0;
const MAX_SHRINKAGE: f64 = 1.0 / 64.0;
/// A delay says little of the number of operations in flight if they are no more than these: the server may just have
/// paused. The window is at least so large when it begins to shrink.
const FEW: f64 = 2.0;
/// The window is at least so large when the first reply is late.
const LEAST_CAP: f64 = 8.0;
/// Where replies do not come at all, the window does not become smaller: the server is not overloaded but gone, or
/// frozen, and when it is back all may go on at once.
const FEWEST_UNANSWERED: f64 = 1.0;
/// The longest pause between two operations, so that the end of an overload is noticed.
const MAX_PAUSE: Duration = Duration::from_secs(4);

/// Admits operations with a deadline to one server.
pub(crate) struct Admission {
    deadline: Duration,
    max_in_flight: u32,
    in_flight: AtomicU32,
    /// The window, rounded down.
    limit: AtomicU32,
    control: Mutex<Control>,
}

struct Control {
    window: f64,
    /// When the window last changed: the delay of what was sent before does not tell whether the change was enough.
    changed: Option<Instant>,
    /// The delay of the fastest replies when little was in flight.
    base: Option<Duration>,
    /// Whether the last change was that of the window to what was in flight.
    is_capped: bool,
    /// With a window below one: when the next operation may be sent.
    next: Option<Instant>,
}

/// What has become of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The reply has arrived, in time or late.
    Answered,
    /// It has not arrived in time.
    Missed,
}

impl Admission {
    /// For operations that fail this time after they were sent, of which at most so many may be in flight.
    pub(crate) fn new(deadline: Duration, max_in_flight: u32) -> Self {
        Self {
            deadline,
            max_in_flight,
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(max_in_flight),
            control: Mutex::new(Control {
                window: f64::from(max_in_flight),
                changed: None,
                base: None,
                is_capped: false,
                next: None,
            }),
        }
    }

    /// For any number of operations.
    pub(crate) fn unlimited() -> Self {
        Self::new(Duration::MAX, u32::MAX)
    }

    /// Admits an operation that is about to be sent, which then counts until it is [released](Self::release). `None` if
    /// its reply would probably come too late, and else the number of the others in flight.
    pub(crate) fn admit(&self) -> Option<u32> {
        let others = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed);
        let is_admitted = match limit {
            0 => others == 0 && self.is_time(),
            _ => others < limit,
        };
        if is_admitted {
            return Some(others);
        }
        self.release(1);
        None
    }

    /// Ends the count of so many operations: their replies have arrived, or will not.
    pub(crate) fn release(&self, operations: u32) {
        self.in_flight.fetch_sub(operations, Ordering::Relaxed);
    }

    /// Whether the window has shrunk.
    pub(crate) fn is_shrunk(&self) -> bool {
        self.limit.load(Ordering::Relaxed) < self.max_in_flight
    }

    /// Notes the outcome of an operation that was sent at this moment.
    pub(crate) fn note(&self, sent: Instant, outcome: Outcome) {
        let now = Instant::now();
        let delay = now.duration_since(sent);
        if delay <= self.deadline / USUAL_PART && !self.is_shrunk() {
            return;
        }
        let mut control = self.control();
        if control.changed.is_some_and(|changed| sent < changed) {
            return;
        }
        let in_flight = f64::from(self.in_flight.load(Ordering::Relaxed));
        if outcome == Outcome::Answered && in_flight <= FEW {
            control.note_base(delay);
        }
        let (usual, target) = self.delays(&control);
        let (window, max) = (control.window, f64::from(self.max_in_flight));
        let factor = target.as_secs_f64() / delay.as_secs_f64().max(1e-6);
        let was_capped = mem::take(&mut control.is_capped);
        let changed = if delay <= usual {
            // The square root dampens: many clients see the same delay and change their windows at the same time.
            (window * factor.min(MAX_GROWTH).sqrt()).min(max)
        } else if delay < self.deadline && !was_capped && window > in_flight.max(LEAST_CAP) {
            // It may be a pause of the server, after which all that waits is answered soon.
            control.is_capped = true;
            in_flight.max(LEAST_CAP)
        } else if delay <= target {
            window
        } else {
            let min = match outcome {
                Outcome::Missed => FEWEST_UNANSWERED.min(window),
                Outcome::Answered => target.as_secs_f64() / MAX_PAUSE.as_secs_f64(),
            };
            (window.min(in_flight.max(FEW)) * factor.max(MAX_SHRINKAGE)).max(min)
        };
        if changed != window {
            self.set(&mut control, changed, Some(now));
        }
    }

    /// Lets at least one operation be in flight at once: there is a new connection, and it may lead to another server.
    pub(crate) fn retry(&self) {
        let mut control = self.control();
        if control.window < 1.0 {
            self.set(&mut control, 1.0, Some(Instant::now()));
        }
    }

    fn set(&self, control: &mut Control, window: f64, changed: Option<Instant>) {
        control.window = window;
        control.changed = changed;
        self.limit.store(control.window as u32, Ordering::Relaxed);
    }

    /// The delay up to which the window grows, and the one from which on it shrinks.
    fn delays(&self, control: &Control) -> (Duration, Duration) {
        let base = control.base.unwrap_or_default() * TIMES_BASE;
        let usual = base.clamp(self.deadline / USUAL_PART, self.deadline / MAX_USUAL_PART);
        (usual, usual * TIMES_USUAL)
    }

    /// Whether the pause since the last operation is over; if so, another one begins.
    fn is_time(&self) -> bool {
        let (mut control, now) = (self.control(), Instant::now());
        if control.next.is_some_and(|next| now < next) {
            return false;
        }
        // Random, so that clients do not send in step.
        let pause = self.delays(&control).1.div_f64(control.window);
        control.next = Some(now + pause / 2 + jitter::up_to(pause));
        true
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // No code that holds the lock can panic halfway.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    fn note_base(&mut self, delay: Duration) {
        let base = self.base.map_or(delay, |base| {
            let slower = base + base / FORGET_PART;
            delay.min(slower)
        });
        self.base = Some(base);
    }
}
