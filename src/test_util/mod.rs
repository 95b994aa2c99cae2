//! Test utilities for services and stores (feature `test-util`).
//!
//! - [`LoggedIn`] makes a request of a logged-in user in one line; [`bearer`] is for clients without `http` requests.
//! - [`Faults`] makes a store fail or respond slowly on demand.
//! - [`store_conformance_tests!`](crate::store_conformance_tests) checks that a custom store keeps the
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
