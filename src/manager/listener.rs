use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, OnceLock},
    thread,
};

use super::event::{Event, EventContext, EventKind};
use crate::{Error, TokenId};

/// Receives the events of one manager and of its store.
///
/// The hooks are set when the manager is built, after the store got a clone of the listener.
#[derive(Clone, Default)]
pub(super) struct Listener {
    hooks: Arc<OnceLock<Vec<Box<Hook>>>>,
    context: Option<Arc<EventContext>>,
}

pub(super) type Hook = dyn Fn(&Event<'_>) + Send + Sync;

impl Listener {
    /// Sets the hooks.
    pub(super) fn set(&self, hooks: Vec<Box<Hook>>) {
        let _the_first_ones_stay = self.hooks.set(hooks);
    }

    /// The listener for events with this context.
    pub(super) fn with_context(&self, context: Option<Arc<EventContext>>) -> Self {
        let hooks = Arc::clone(&self.hooks);
        Self { hooks, context }
    }

    /// Tells all hooks of an event. `metadata` is that of its session, if it is known.
    pub(super) fn tell(&self, kind: EventKind<'_>, metadata: Option<&[u8]>) {
        self.tell_in(self.context.as_deref(), kind, metadata);
    }

    /// Tells all hooks of an event with another context.
    pub(super) fn tell_in(
        &self,
        context: Option<&EventContext>,
        kind: EventKind<'_>,
        metadata: Option<&[u8]>,
    ) {
        let hooks = self.hooks.get().map_or(&[][..], Vec::as_slice);
        if cfg!(not(feature = "tracing")) && hooks.is_empty() {
            return;
        }
        let event = Event::new(kind, metadata, context);
        #[cfg(feature = "tracing")]
        super::trace::event(&event);
        let mut panic = None;
        for hook in hooks {
            // A panic keeps the event from no other hook.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| hook(&event))) {
                panic.get_or_insert(payload);
            }
        }
        // A second panic would abort the process.
        if let Some(panic) = panic
            && !thread::panicking()
        {
            resume_unwind(panic);
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
        let kind = EventKind::Failed {
            operation,
            user_id,
            token_id,
            error,
        };
        self.tell(kind, None);
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

    #[test]
    fn a_hook_that_panics_keeps_the_event_from_no_other() {
        let told = Arc::new(OnceLock::new());
        let (listener, later) = (Listener::default(), Arc::clone(&told));
        listener.set(vec![
            Box::new(|_| panic!("the hook panics, as it was told")),
            Box::new(move |event| later.set(event.name()).unwrap()),
        ]);
        let error = Error::new(ErrorKind::LoadUser, "x");
        let telling = || listener.failed("load_user", Some("al"), None, &error);
        catch_unwind(AssertUnwindSafe(telling)).unwrap_err();
        assert_eq!(told.get(), Some(&"failed"));
    }
}
