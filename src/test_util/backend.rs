use crate::SessionStore;

/// Where [`store_conformance_tests!`](crate::store_conformance_tests) finds stores: what they all keep their sessions in.
///
/// A store that can be cloned is one, if its clones share their sessions. Implement it for something else to give every
/// handle a connection of its own, or to keep a server running for as long as a test does.
///
/// ```
/// # use tower_bearer_session::MemoryStore as MyStore;
/// use tower_bearer_session::test_util::Backend;
///
/// struct Database {
///     name: String, // of a database that no other test uses
/// }
///
/// impl Backend for Database {
///     type Store = MyStore;
///
///     async fn store(&self) -> MyStore {
///         // Connect to it.
/// #       MyStore::new()
///     }
/// }
/// ```
pub trait Backend {
    /// The store under test.
    type Store: SessionStore;

    /// A handle on the sessions, the same ones for each call.
    fn store(&self) -> impl Future<Output = Self::Store>;
}

impl<S: SessionStore + Clone> Backend for S {
    type Store = S;

    async fn store(&self) -> S {
        self.clone()
    }
}
