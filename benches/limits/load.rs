//! Tasks that each do one operation after the other.

use std::time::Instant;

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use super::{cpu::Cpu, report::Column};

/// Operations per second, and what follows, in microseconds per operation.
pub(crate) type Figures = [f64; 5];

pub(crate) const RATE: usize = 0;
pub(crate) const HALF: usize = 1;
pub(crate) const MOST: usize = 2;
pub(crate) const CLIENT: usize = 3;
pub(crate) const SERVER: usize = 4;

pub(crate) const COLUMNS: [Column; 7] = [
    Column::median("operations/s", RATE, 0),
    Column::ratio("ratio", RATE),
    Column::median("p50 µs", HALF, 0),
    Column::median("p99 µs", MOST, 0),
    Column::median("client CPU µs", CLIENT, 2),
    Column::ratio("ratio", CLIENT),
    Column::median("server CPU µs", SERVER, 2),
];

/// So many operations by so many tasks, on this runtime.
pub(crate) struct Load<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) tasks: usize,
    pub(crate) operations: usize,
    pub(crate) client: Cpu,
    pub(crate) server: Cpu,
}

/// The operations of one task, and how long each took.
pub(crate) struct Laps {
    count: usize,
    begun: Option<Instant>,
    micros: Vec<f32>,
}

impl Load<'_> {
    /// One round. What `worker` does before it returns its future is not measured; the future does an operation for as
    /// long as there is a [next](Laps::next) one.
    pub(crate) fn run<W>(&self, worker: impl Fn(Laps) -> W) -> Figures
    where
        W: Future<Output = Laps> + Send + 'static,
    {
        let count = self.operations / self.tasks;
        let workers: Vec<_> = (0..self.tasks).map(|_| worker(Laps::new(count))).collect();
        let clocks = [self.client, self.server];
        let before = clocks.map(Cpu::seconds);
        let start = Instant::now();
        let laps = self.runtime.block_on(async {
            let mut running = JoinSet::new();
            for worker in workers {
                running.spawn(worker);
            }
            running.join_all().await
        });
        let took = start.elapsed().as_secs_f64();
        let after = clocks.map(Cpu::seconds);
        let mut micros: Vec<_> = laps.into_iter().flat_map(|laps| laps.micros).collect();
        micros.sort_by(f32::total_cmp);
        let operations = micros.len();
        let percentile = |percent| f64::from(micros[operations * percent / 100]);
        let cpu = |clock: usize| (after[clock] - before[clock]) * 1e6 / operations as f64;
        [
            operations as f64 / took,
            percentile(50),
            percentile(99),
            cpu(0),
            cpu(1),
        ]
    }
}

impl Laps {
    fn new(count: usize) -> Self {
        Self {
            count,
            begun: None,
            micros: Vec::with_capacity(count),
        }
    }

    /// Ends an operation and begins the next one; `false` when there is none.
    pub(crate) fn next(&mut self) -> bool {
        let now = Instant::now();
        if let Some(begun) = self.begun.replace(now) {
            self.micros.push((now - begun).as_secs_f32() * 1e6);
        }
        self.micros.len() < self.count
    }
}

/// A runtime as services have it.
pub(crate) fn many_threads() -> Runtime {
    Builder::new_multi_thread().enable_all().build().unwrap()
}

/// A runtime on the thread that uses it.
pub(crate) fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
