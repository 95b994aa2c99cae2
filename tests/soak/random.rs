//! Random numbers from a seed, so that a run can be repeated (as far as servers and schedulers let it).

use std::{env, time::Duration};

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A duration between these, in milliseconds.
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }
}

/// `SOAK_SEED`, or else another one for each run.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    from_environment("SOAK_SEED").unwrap_or_else(|| RandomState::new().hash_one(0))
}

/// `SOAK_SECONDS`: how long the workload runs on each deployment.
pub(crate) fn length() -> Duration {
    Duration::from_secs(from_environment("SOAK_SECONDS").unwrap_or(10))
}

fn from_environment(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")))
}
