//! Random parts of pauses: what fails for many at the same time must not be tried again by all of them at the same
//! time.

use std::time::Duration;

/// A random number below `end`, and zero if there is none.
#[cfg(feature = "redis")]
pub(crate) fn below(end: usize) -> usize {
    let random = getrandom::u32().unwrap_or(0) as usize;
    random.checked_rem(end).unwrap_or(0)
}

/// A random time from zero to `max`. Without random numbers it is `max`.
pub(crate) fn up_to(max: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    max.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
