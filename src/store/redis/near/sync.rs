//! The primitives of the [table](super::table), which the model of it replaces by those of a model checker.

pub(super) use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
use std::sync::{MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds the lock can panic halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
