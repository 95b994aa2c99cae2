//! Random parts of pauses: what fails for many at the same time must not be tried again by all of them at the same
//! time.

use std::time::Duration;

/// A random number, or else zero.
#[cfg(feature = "redis")]
pub(crate) fn number() -> usize {
    getrandom::u32().unwrap_or(0) as usize
}

/// A random time from zero to `max`. Without random numbers it is `max`.
pub(crate) fn up_to(max: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    max.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
