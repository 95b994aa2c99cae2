//! Admission of operations to a server that may be overloaded.
//!
//! A server that gets more work than it can do answers everything too late, and nobody uses the answers. So the
//! operations in flight on a connection have a *window*: what does not fit is refused at once. It follows the delay of
//! the replies, as congestion windows do in Swift (G. Kumar et al., *Swift: Delay is Simple and Effective for Congestion
//! Control in the Datacenter*, SIGCOMM 2020, §3). At most once per round trip:
//!
//! | delay of a reply | window |
//! |---|---|
//! | up to the *target* | grows, the more the shorter the delay is |
//! | above it | shrinks to what the server does within the target, by Little's law |
//! | high while the window is far above what is in flight | is cut: see below |
//! | no reply in time | shrinks, but not below one |
//! | no reply for some seconds, because none was asked for | is as large as it can be |
//!
//! The third row is for a server that pauses: all that waits is answered soon. Many operations in flight show by
//! themselves whether the server does more of them, so the window is cut to what is in flight. Few do not, and they may
//! be those of one process among a thousand: if the others are answered soon as well, the server has paused; if not,
//! the window is one.
//!
//! The target is a part of the deadline: more where the way to the server takes long, and more for a small window,
//! because the less each process has in flight, the more of them share the server (flow-based scaling in Swift, §3.5).
//!
//! A window below one is a rate, of one operation per target and window: thousands of processes may share a server that
//! has less than one operation of each in flight. Each of them decides for itself, by the delays that it sees.
//!
//! Where nothing is delayed, the window is as large as it can be, and nothing is locked.

mod base;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use self::base::Base;
use crate::jitter;

/// The maximum number of operations in flight, however fast the server answers.
const MAX_IN_FLIGHT: u32 = 65_536;
/// The parts of the deadline that replies may take, where the way to the server is short: from the first on, the window
/// is cut, and from the second on it shrinks.
const HIGH_PART: u32 = 10;
const TARGET_PART: u32 = 5;
/// Where the way is long, the target is twice as long as the fastest replies take, within this part of the deadline, and
/// half as long again beyond it.
const MAX_TARGET_PART: u32 = 2;
/// For a window of one the target is longer by this factor, and for larger ones by it over their square root.
const FEW_FACTOR: f64 = 3.0;
/// Replies that wait for others at the server look like a long way. So a window that has an effect is divided by this
/// number for a round trip, once in each period for which the fastest reply counts (as BBR does: N. Cardwell et al., *BBR:
/// Congestion-Based Congestion Control*, ACM Queue 14, 2016).
const PROBE: f64 = 4.0;
/// The window grows by this factor at most, and shrinks to this part at least.
const MAX_GROWTH: f64 = 4.0;
const MAX_SHRINKAGE: f64 = 1.0 / 64.0;
/// From so many operations in flight on, there are many. The window after a pause of the server.
const LEAST_CUT: f64 = 32.0;
/// A window that is so many times what is in flight has no effect.
const IDLE_TIMES: f64 = 4.0;
/// The number in flight from which shrinking begins, at least.
const FEW: f64 = 2.0;
/// The longest pause between two operations when none is in flight, so that the end of an overload is noticed.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// After so long without an operation, the window says nothing any more. Longer than the longest pause.
const MEMORY: Duration = Duration::from_secs(3);

/// Admits operations to one connection.
pub(crate) struct Admission {
    deadline: Duration,
    max_in_flight: u32,
    in_flight: AtomicU32,
    /// The window, rounded down.
    limit: AtomicU32,
    /// Whether a reply has come fast since this was last looked at.
    was_fast: AtomicBool,
    control: Mutex<Control>,
}

struct Control {
    window: f64,
    /// When the window last changed: the delay of what was sent before does not tell whether the change was enough.
    changed: Option<Instant>,
    /// When the window was cut because of few operations, until it is known whether the server has paused.
    doubted: Option<Instant>,
    /// When an outcome was last recorded.
    recorded: Option<Instant>,
    base: Base,
    /// With a window below one: when the next operation may be sent.
    next: Option<Instant>,
}

/// An operation in flight, until it is dropped.
pub(crate) struct Permit {
    admission: Arc<Admission>,
    /// The number of the others when it was admitted.
    pub(crate) others: u32,
}

/// What has become of operations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The reply has arrived, in time or late, to so many that are in flight until this is recorded.
    Answered(u32),
    /// It has not arrived in time.
    Missed,
}

impl Admission {
    /// For operations with this deadline.
    pub(crate) fn new(deadline: Duration) -> Self {
        Self::with_max(deadline, MAX_IN_FLIGHT)
    }

    /// For a new connection in place of the one of this admission. It may lead to the same server or to another one: it
    /// begins with the window as it was, and at least one operation. What the old one still owes does not count. The
    /// first round trip on the new one took this long.
    pub(crate) fn after(&self, round_trip: Duration) -> Self {
        let (new, now) = (
            Self::with_max(self.deadline, self.max_in_flight),
            Instant::now(),
        );
        let mut control = new.control();
        if !self.is_open() {
            let last = self.control();
            (control.base, control.recorded) = (last.base, last.recorded);
            new.set(&mut control, last.window.max(1.0), now);
        }
        control.base.record(now, round_trip);
        drop(control);
        new
    }

    /// For any number of operations.
    pub(crate) fn unlimited() -> Self {
        Self::with_max(Duration::MAX, u32::MAX)
    }

    fn with_max(deadline: Duration, max_in_flight: u32) -> Self {
        Self {
            deadline,
            max_in_flight,
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(max_in_flight),
            was_fast: AtomicBool::new(false),
            control: Mutex::new(Control {
                window: f64::from(max_in_flight),
                changed: None,
                doubted: None,
                recorded: None,
                base: Base::default(),
                next: None,
            }),
        }
    }

    /// Admits an operation that is about to be sent; `None` if its reply would probably come too late.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Permit> {
        let others = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit {
            admission: Arc::clone(self),
            others,
        };
        let is_admitted = others < self.limit.load(Ordering::Relaxed) || self.readmit(others);
        is_admitted.then_some(permit)
    }

    /// The number of operations in flight.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether all operations may be in flight that can be.
    pub(crate) fn is_open(&self) -> bool {
        self.limit.load(Ordering::Relaxed) == self.max_in_flight
    }

    /// Records the outcome of an operation that was sent at this moment.
    pub(crate) fn record(&self, sent: Instant, outcome: Outcome) {
        let now = Instant::now();
        let delay = now.duration_since(sent);
        let fast = self.deadline / HIGH_PART;
        let answered = match outcome {
            Outcome::Answered(operations) => operations,
            Outcome::Missed => 0,
        };
        if delay <= fast && self.is_open() {
            if !self.was_fast.load(Ordering::Relaxed) {
                self.was_fast.store(true, Ordering::Relaxed);
            }
            return;
        }
        let mut control = self.control();
        let control = &mut *control;
        control.recorded = Some(now);
        if self.was_fast.swap(false, Ordering::Relaxed) {
            control.base.record(now, fast / 2);
        }
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let (others, in_flight) = (in_flight.saturating_sub(answered), f64::from(in_flight));
        let window = control.window;
        let has_effect = window <= IDLE_TIMES * in_flight.max(LEAST_CUT);
        if answered > 0 && delay < self.deadline {
            let is_new_period = control.base.record(now, delay);
            if is_new_period && has_effect && window >= PROBE {
                self.set(control, window / PROBE, now);
                return;
            }
        }
        let (high, target) = (self.high(control), self.target(control));
        if let Some(cut) = control.doubted {
            let is_soon = now.duration_since(cut) <= fast;
            if sent < cut && !(is_soon && others > 0) {
                self.set(control, if is_soon { LEAST_CUT } else { 1.0 }, now);
                control.doubted = None;
            }
        }
        if control.changed.is_some_and(|changed| sent < changed) {
            return;
        }
        let resized = if !has_effect && delay > high {
            let is_few = (1..LEAST_CUT as u32).contains(&others);
            control.doubted = is_few.then_some(now);
            match is_few {
                true => in_flight,
                false => in_flight.max(LEAST_CUT),
            }
        } else if delay <= target && answered > 0 {
            self.grown(control, delay)
        } else {
            self.shrunk(control, delay, outcome, in_flight)
        };
        if resized != window {
            self.set(control, resized, now);
        }
    }

    /// The window after a delay below the target.
    fn grown(&self, control: &Control, delay: Duration) -> f64 {
        let factor = ratio(self.target(control), delay);
        let least = if delay <= self.high(control) {
            1.0
        } else {
            0.0
        };
        // The square root dampens: many clients see the same delay, and change their windows at the same time.
        let grown = control.window * factor.sqrt().min(MAX_GROWTH);
        grown.clamp(least, f64::from(self.max_in_flight))
    }

    /// The window after a delay above the target, or without a reply.
    fn shrunk(&self, control: &Control, delay: Duration, outcome: Outcome, in_flight: f64) -> f64 {
        let target = self.target(control);
        let least = match outcome {
            Outcome::Missed => control.window.min(1.0),
            Outcome::Answered(_) => ratio(target, MAX_PAUSE),
        };
        let used = control.window.min(in_flight.max(FEW));
        (used * ratio(target, delay).max(MAX_SHRINKAGE)).max(least)
    }

    /// Whether an operation is admitted that does not fit into the window.
    #[cold]
    fn readmit(&self, others: u32) -> bool {
        let mut control = self.control();
        let control = &mut *control;
        let now = Instant::now();
        let is_forgotten = |recorded| now.duration_since(recorded) > MEMORY;
        if !self.is_open() && control.recorded.is_none_or(is_forgotten) {
            self.set(control, f64::from(self.max_in_flight), now);
            return others < self.max_in_flight;
        }
        if control.window >= 1.0 || others > 0 || control.next.is_some_and(|next| now < next) {
            return false;
        }
        control.next = Some(now + self.pause(control));
        true
    }

    fn set(&self, control: &mut Control, window: f64, now: Instant) {
        control.window = window;
        control.changed = Some(now);
        self.limit.store(window as u32, Ordering::Relaxed);
        if let Some(next) = control.next {
            control.next = Some(next.min(now + self.pause(control)));
        }
    }

    /// The pause after an operation, with a window below one. Random, so that clients do not send in step.
    fn pause(&self, control: &Control) -> Duration {
        let pause = self.target(control).as_secs_f64() / control.window;
        let pause = Duration::from_secs_f64(pause.min(MAX_PAUSE.as_secs_f64()));
        pause / 2 + jitter::up_to(pause / 2)
    }

    /// The delay from which on the window shrinks.
    fn target(&self, control: &Control) -> Duration {
        let base = control.base.get();
        let (least, most) = (self.deadline / TARGET_PART, self.deadline / MAX_TARGET_PART);
        let target = (base * 2).clamp(least, most).max(base * 3 / 2);
        let few = (FEW_FACTOR / control.window.sqrt()).clamp(1.0, FEW_FACTOR);
        let target = target.max(least.mul_f64(few));
        // Some time is left for what waits, but a way that takes longer than that is no overload.
        target.min((self.deadline * 9 / 10).max(base + base / 16))
    }

    /// The delay from which on a window that has no effect is cut.
    fn high(&self, control: &Control) -> Duration {
        (self.deadline / HIGH_PART).max(control.base.get() * 3 / 2)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // No code that holds the lock can panic halfway.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ratio(time: Duration, to: Duration) -> f64 {
    time.as_secs_f64() / to.as_secs_f64().max(1e-6)
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(500);
    const MS: Duration = Duration::from_millis(1);

    fn admission() -> Arc<Admission> {
        Arc::new(Admission::new(DEADLINE))
    }

    fn window(admission: &Admission) -> f64 {
        admission.control().window
    }

    /// As many as there is room for; `operations` at most.
    fn admit(admission: &Arc<Admission>, operations: u32) -> Vec<Permit> {
        (0..operations).filter_map(|_| admission.admit()).collect()
    }

    /// Records an operation that is sent now and has this outcome after this delay, with others in flight.
    async fn record(admission: &Admission, delay: Duration, outcome: Outcome) {
        let sent = Instant::now();
        advance(delay).await;
        admission.record(sent, outcome);
    }

    /// One whose window was cut and then shrunk by a delay of 200 ms, of so many operations.
    async fn shrunk(operations: u32) -> (Arc<Admission>, Vec<Permit>) {
        let admission = admission();
        record(&admission, MS, Outcome::Answered(1)).await;
        let permits = admit(&admission, operations);
        for _ in 0..2 {
            record(&admission, 200 * MS, Outcome::Answered(1)).await;
        }
        (admission, permits)
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_delay_all_are_admitted() {
        let admission = admission();
        for _ in 0..10 {
            record(&admission, DEADLINE / HIGH_PART, Outcome::Answered(1)).await;
        }
        let permits = admit(&admission, MAX_IN_FLIGHT + 1);
        assert_eq!(permits.len(), MAX_IN_FLIGHT as usize);
        drop(permits);
        assert_eq!((admission.in_flight(), admission.is_open()), (0, true));
        let unlimited = Arc::new(Admission::unlimited());
        record(&unlimited, 1000 * DEADLINE, Outcome::Missed).await;
        assert!(unlimited.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_high_delay_cuts_the_window_to_what_is_in_flight() {
        for (in_flight, cut) in [(1, LEAST_CUT), (2, 2.0), (31, 31.0), (100, 100.0)] {
            let admission = admission();
            record(&admission, MS, Outcome::Answered(1)).await;
            let _permits = admit(&admission, in_flight);
            record(&admission, 300 * MS, Outcome::Answered(1)).await;
            assert_eq!(window(&admission), cut);
        }
    }

    /// One whose window was cut by a reply, 300 ms late, to the first of four operations.
    async fn doubted() -> (Arc<Admission>, Instant, Vec<Permit>) {
        let admission = admission();
        record(&admission, MS, Outcome::Answered(1)).await;
        let sent = Instant::now();
        let mut permits = admit(&admission, 4);
        advance(300 * MS).await;
        admission.record(sent, Outcome::Answered(1));
        permits.pop();
        assert_eq!(window(&admission), 4.0);
        (admission, sent, permits)
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_the_window_is_wide() {
        let (admission, sent, mut permits) = doubted().await;
        advance(DEADLINE / HIGH_PART).await;
        for window_then in [4.0, LEAST_CUT] {
            admission.record(sent, Outcome::Answered(permits.len() as u32 / 2 + 1));
            permits.truncate(1);
            assert_eq!(window(&admission), window_then);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn if_few_are_answered_slowly_the_window_is_one() {
        let (admission, sent, permits) = doubted().await;
        advance(DEADLINE / HIGH_PART + MS).await;
        admission.record(sent, Outcome::Answered(1));
        assert_eq!((window(&admission), permits.len()), (1.0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_fewer_there_are_the_longer_the_target() {
        let mut targets = Vec::new();
        for window in [0.5, 1.0, 4.0, 9.0, 100.0] {
            let admission = admission();
            let mut control = admission.control();
            control.window = window;
            targets.push(admission.target(&control).as_millis());
        }
        assert_eq!(targets, [300, 300, 150, 100, 100]);
    }

    /// In 200 ms the server does what was in flight, so in 100 ms half of it.
    #[tokio::test(start_paused = true)]
    async fn a_delay_above_the_target_shrinks_it_to_what_the_server_does() {
        let (admission, permits) = shrunk(100).await;
        assert_eq!(window(&admission), 50.0);
        assert!(admission.admit().is_none());
        drop(permits);
        assert_eq!(admit(&admission, 100).len(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn it_changes_at_most_once_in_a_round_trip() {
        let (admission, _permits) = shrunk(100).await;
        let before = Instant::now() - 200 * MS;
        for _ in 0..10 {
            admission.record(before, Outcome::Answered(1));
        }
        assert_eq!(window(&admission), 50.0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_shorter_the_delay_the_more_it_grows() {
        let mut grown = Vec::new();
        for delay in [1, 20, 50, 99] {
            let (admission, _permits) = shrunk(100).await;
            record(&admission, delay * MS, Outcome::Answered(1)).await;
            grown.push(window(&admission));
        }
        assert!(grown.is_sorted_by(|a, b| a > b), "{grown:?}");
        assert!(
            grown[0] == 50.0 * MAX_GROWTH && grown[3] > 50.0,
            "{grown:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_replies_it_does_not_fall_below_one() {
        let (admission, permits) = shrunk(100).await;
        for _ in 0..20 {
            record(&admission, DEADLINE, Outcome::Missed).await;
        }
        assert_eq!(window(&admission), 1.0);
        drop(permits);
        assert_eq!(admit(&admission, 10).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_below_one_is_a_rate() {
        let (admission, permits) = shrunk(1).await;
        drop(permits);
        let mut admitted = 0;
        for _ in 0..200 {
            // Its server is overloaded, whatever this client does; the way is short.
            record(&admission, 90 * MS, Outcome::Answered(1)).await;
            for _ in 0..3 {
                record(&admission, 450 * MS, Outcome::Answered(1)).await;
            }
            admitted += admit(&admission, 10).len();
        }
        let rate = f64::from(admitted as u32) / (200.0 * 1.44);
        let least = 1.0 / MAX_PAUSE.as_secs_f64();
        assert!(
            rate > 0.7 * least && rate < 2.0 * least,
            "{rate} in a second"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn some_seconds_without_an_operation_open_it() {
        let (admission, permits) = shrunk(100).await;
        sleep(MEMORY - MS).await;
        assert!(admission.admit().is_none());
        sleep(2 * MS).await;
        assert!(admission.admit().is_some() && admission.is_open());
        drop(permits);
    }

    /// What the old connection owes does not count for the new one, and what was learned does.
    #[tokio::test(start_paused = true)]
    async fn another_connection_begins_with_the_window_of_the_last() {
        let (admission, _permits) = shrunk(100).await;
        let next = Arc::new(admission.after(MS));
        assert_eq!(admit(&next, 100).len(), 50);
        let (small, _permit) = shrunk(1).await;
        record(&small, 450 * MS, Outcome::Answered(1)).await;
        assert!(window(&small) < 1.0);
        assert_eq!(admit(&Arc::new(small.after(MS)), 10).len(), 1);
    }
}
