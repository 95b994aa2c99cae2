use crate::SessionStore;

/// A factory of store handles that share their sessions, for
/// [`store_conformance_tests!`](crate::store_conformance_tests).
///
/// Every store that is `Clone` is a backend; its clones must share their sessions. Implement the trait for another type
/// to give every handle its own connection, or to keep a server running during a test.
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

    /// Creates a store handle. All handles of a backend share the same sessions.
    fn store(&self) -> impl Future<Output = Self::Store>;
}

impl<S: SessionStore + Clone> Backend for S {
    type Store = S;

    async fn store(&self) -> S {
        self.clone()
    }
}
