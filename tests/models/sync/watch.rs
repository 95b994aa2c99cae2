//! Tokio's channel of the last value. Its receivers block their thread: each task of a model has one of its own.

use std::{ops::Deref, sync::Arc};

use loom::sync::{Condvar, Mutex};

use super::lock;

pub(crate) struct Sender<T>(Arc<Shared<T>>);

pub(crate) struct Receiver<T>(Arc<Shared<T>>);

pub(crate) struct Ref<T>(T);

/// The sender is gone.
pub(crate) struct Closed;

struct Shared<T> {
    state: Mutex<State<T>>,
    changes: Condvar,
}

struct State<T> {
    value: T,
    is_closed: bool,
}

pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let is_closed = false;
    let shared = Arc::new(Shared {
        state: Mutex::new(State { value, is_closed }),
        changes: Condvar::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    pub(crate) fn send_replace(&self, value: T) {
        lock(&self.0.state).value = value;
        self.0.changes.notify_all();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        lock(&self.0.state).is_closed = true;
        self.0.changes.notify_all();
    }
}

impl<T: Clone> Receiver<T> {
    pub(crate) async fn wait_for(&mut self, is: impl Fn(&T) -> bool) -> Result<Ref<T>, Closed> {
        let mut state = lock(&self.0.state);
        loop {
            if is(&state.value) {
                return Ok(Ref(state.value.clone()));
            }
            if state.is_closed {
                return Err(Closed);
            }
            let changed = self.0.changes.wait(state);
            state = changed.expect("no panic with the lock held");
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Ref<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
