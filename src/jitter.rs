//! Random parts of pauses: what fails for many at the same time must not be tried again by all of them at the same
//! time.

use std::time::Duration;

/// A random number, or else zero.
#[cfg(feature = "redis")]
pub(crate) fn number() -> usize {
    random().unwrap_or(0) as usize
}

/// A random time from zero to `max`. Without random numbers it is `max`.
pub(crate) fn up_to(max: Duration) -> Duration {
    let random = random().unwrap_or(u32::MAX);
    max.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn random() -> Option<u32> {
    #[cfg(test)]
    if let Some(number) = seeded::next() {
        return Some(number);
    }
    getrandom::u32().ok()
}

/// Random numbers that a simulation can repeat.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Makes the random numbers of this thread depend on the seed only.
    pub(crate) fn start(seed: u64) {
        STATE.set(Some(seed));
    }

    /// The next number, if there is a seed.
    pub(super) fn next() -> Option<u32> {
        let mut state = STATE.get()?;
        let number = splitmix64(&mut state);
        STATE.set(Some(state));
        Some((number >> 32) as u32)
    }

    /// The next number of a generator with this state.
    pub(crate) fn splitmix64(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
