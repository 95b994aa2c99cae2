//! What threads share, in all interleavings of a few of them.
//!
//! [loom](https://docs.rs/loom) runs each test once for every order of the operations on what threads share, and for
//! every value that the memory model lets them read. It takes the sources of the crate as they are, with locks and
//! atomics of its own: those of [`sync`].

#[cfg(test)]
mod lookups;
#[cfg(test)]
mod near;
#[cfg(test)]
mod store;
#[cfg(test)]
mod sync;
#[cfg(test)]
mod users;

#[cfg(test)]
use store::Error;
