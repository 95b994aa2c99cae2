//! The primitives of what `tests/models` checks, which has those of a model checker in their place.

pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
use std::sync::{MutexGuard, PoisonError};

pub(crate) use tokio::sync::watch;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds the lock can panic halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
