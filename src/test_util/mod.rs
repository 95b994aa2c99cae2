//! For tests of services, and of stores (feature `test-util`).
//!
//! - **A request of a logged-in user** in one line: [`LoggedIn`], and [`bearer`] for clients that are not built on `http`'s
//!   requests.
//! - **A store that fails or is slow** when the test says so: [`Faults`].
//! - **A store of your own**: [`store_conformance_tests!`](crate::store_conformance_tests) checks that it keeps the
//!   [contract](crate::SessionStore).

pub use self::{
    backend::Backend,
    faults::{Faults, FaultyStore},
    request::{LoggedIn, bearer},
};

mod backend;
#[doc(hidden)]
pub mod conformance;
mod faults;
mod request;
