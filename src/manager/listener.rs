use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    thread,
};

use super::event::Event;
use crate::{Error, TokenId};

/// Receives the events of one manager and of its store.
///
/// The hooks are set when the manager is built, after the store got a clone of the listener.
#[derive(Clone, Default)]
pub(super) struct Listener(Arc<OnceLock<Vec<Box<Hook>>>>);

pub(super) type Hook = dyn Fn(&Event<'_>) + Send + Sync;

impl Listener {
    /// Sets the hooks.
    pub(super) fn set(&self, hooks: Vec<Box<Hook>>) {
        let _the_first_ones_stay = self.0.set(hooks);
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        #[cfg(feature = "tracing")]
        super::trace::event(event);
        for hook in self.0.get().into_iter().flatten() {
            if thread::panicking() {
                // A second panic would abort the process.
                let _panic = catch_unwind(AssertUnwindSafe(|| hook(event)));
            } else {
                hook(event);
            }
        }
    }

    /// Reports a failed operation.
    pub(super) fn failed(
        &self,
        operation: &'static str,
        user_id: Option<&str>,
        token_id: Option<&TokenId>,
        error: &Error,
    ) {
        self.tell(&Event::Failed {
            operation,
            user_id,
            token_id,
            error,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    /// Reports an event on drop, as a change does when its caller is dropped.
    struct Report(Listener);

    impl Drop for Report {
        fn drop(&mut self) {
            let error = Error::new(ErrorKind::LoadUser, "x");
            self.0.failed("load_user", Some("al"), None, &error);
        }
    }

    /// A second panic while the first one unwinds would abort the process.
    #[test]
    fn a_hook_that_panics_while_its_task_unwinds_aborts_nothing() {
        let listener = Listener::default();
        listener.set(vec![Box::new(|_| {
            panic!("the hook panics, as it was told")
        })]);
        let unwind = catch_unwind(AssertUnwindSafe(|| {
            let _report = Report(listener);
            panic!("the first panic");
        }));
        let panic = unwind.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the first panic"));
    }
}
