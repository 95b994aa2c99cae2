//! What a process has: tasks, file descriptors and memory.

use std::{fs, time::Duration};

use tokio::{runtime::Handle, time::sleep};

/// What there is while nothing happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) descriptors: usize,
    pub(crate) tasks: usize,
}

/// What may be more in the end than when the services had warmed up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spare {
    pub(crate) descriptors: usize,
    pub(crate) tasks: usize,
    pub(crate) bytes: i64,
}

impl Spare {
    /// A connection that is being replaced, of each store, with both ends of a proxy; buffers and maps that keep their
    /// capacity. What is lost with each fault or operation is more, in a long run.
    pub(crate) const FEW: Self = Self {
        descriptors: 8,
        tasks: 8,
        bytes: 256 * 1024,
    };

    /// So many connections more, each with its tasks and buffers.
    pub(crate) const fn and_connections(self, connections: usize) -> Self {
        Self {
            descriptors: self.descriptors + connections,
            tasks: self.tasks + 3 * connections,
            bytes: self.bytes + 32 * 1024 * connections as i64,
        }
    }
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

    /// The least of what there is for a while, when nobody has done anything for the time `calm`: connections are
    /// replaced now and then, and there is one more meanwhile.
    pub(crate) async fn least(
        services: &[Handle],
        calm: Duration,
        mut ask: impl AsyncFnMut(),
    ) -> Self {
        sleep(calm).await;
        ask().await;
        let mut least = Self::now(services);
        for _ in 0..10 {
            sleep(Duration::from_millis(100)).await;
            let now = Self::now(services);
            least.descriptors = least.descriptors.min(now.descriptors);
            least.tasks = least.tasks.min(now.tasks);
        }
        least
    }

    /// Whether these are more than `before`, but for so many.
    pub(crate) fn exceeds(&self, before: Self, spare: Spare) -> bool {
        self.descriptors > before.descriptors + spare.descriptors
            || self.tasks > before.tasks + spare.tasks
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
