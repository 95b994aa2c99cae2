//! Handles whose events have a context.

use std::{any::Any, sync::Arc};

use super::{TokenManager, event::EventContext, sessions::Sessions};

/// The context of events.
impl<D> TokenManager<D> {
    /// Returns a handle of this manager whose [events](crate::Event) have this [context](crate::Event::context): for
    /// logins, logouts and other calls on behalf of somebody, outside of requests.
    ///
    /// In a request, [`SessionLayer::event_context`](crate::SessionLayer::event_context) does this.
    ///
    /// ```
    /// use tower_bearer_session::{Event, MemoryStore, TokenManager};
    ///
    /// struct Job(&'static str);
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer_session::Error> {
    /// let manager: TokenManager = TokenManager::builder(MemoryStore::new())
    ///     .on_event(|event: &Event<'_>| {
    ///         let job = event.context().map_or("none", |Job(name)| name);
    ///         println!("{} by {job}", event.name());
    ///     })
    ///     .build()?;
    /// manager.with_event_context(Job("nightly")).delete_user_tokens("alice").await?;
    /// # Ok(()) }
    /// ```
    #[must_use = "the handle that is returned has the context, and not this one"]
    pub fn with_event_context(&self, context: impl Any + Send + Sync) -> Self {
        self.in_context(EventContext::new(context))
    }

    /// The context of the events of this handle, if it has one of this type; to give another one more of it.
    pub fn event_context<C: Any>(&self) -> Option<&C> {
        self.context.as_ref()?.get()
    }

    /// [`with_event_context`](Self::with_event_context) with a context whose type has been erased.
    pub(crate) fn in_context(&self, context: EventContext) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            context: Some(Arc::new(context)),
        }
    }

    /// A handle whose events have no context.
    pub(super) fn without_context(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            context: None,
        }
    }

    /// The store and the listener for events with the context of this handle.
    pub(super) fn sessions(&self) -> Sessions {
        let Sessions { store, listener } = &self.inner.sessions;
        Sessions {
            store: Arc::clone(store),
            listener: listener.with_context(self.context.clone()),
        }
    }
}
