//! What a process has: tasks, file descriptors and memory.

use std::{fs, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

/// What there is while nothing happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) descriptors: usize,
    pub(crate) tasks: usize,
}

impl Usage {
    fn now(services: &[Handle]) -> Self {
        let descriptors = fs::read_dir("/proc/self/fd").expect("a list of descriptors");
        let tasks = services.iter().map(|it| it.metrics().num_alive_tasks());
        Self {
            descriptors: descriptors.count(),
            tasks: tasks.sum(),
        }
    }

    /// The least of what there is in this time. Connections are replaced now and then, and there is one more meanwhile.
    pub(crate) async fn least(
        services: &[Handle],
        time: Duration,
        mut ask: impl AsyncFnMut(),
    ) -> Self {
        let start = Instant::now();
        let mut least = Self::now(services);
        while start.elapsed() < time {
            ask().await;
            sleep(Duration::from_millis(100)).await;
            let now = Self::now(services);
            least.descriptors = least.descriptors.min(now.descriptors);
            least.tasks = least.tasks.min(now.tasks);
        }
        least
    }

    /// Whether these are more than `before`, but for a few.
    pub(crate) fn exceeds(&self, before: Self) -> bool {
        // A connection that is being replaced, of each store, with both ends of a proxy.
        const FEW: usize = 8;
        self.descriptors > before.descriptors + FEW || self.tasks > before.tasks + FEW
    }
}

/// The resident memory of the process in bytes: it never shrinks much, so it is only told.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|it| it.parse::<u64>().ok())
        .expect("a size")
        * 1024
}
