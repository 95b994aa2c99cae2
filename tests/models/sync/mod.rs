//! The primitives of `src/sync.rs`, for loom.

pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
use loom::{model::Builder, sync::MutexGuard};

pub(crate) mod watch;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic with the lock held")
}

/// Runs a model of which all interleavings would take days. A thread is interrupted at most `preemptions` times where
/// it need not wait, unless the environment has another number in `LOOM_MAX_PREEMPTIONS`.
pub(crate) fn bounded_model(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(model);
}
