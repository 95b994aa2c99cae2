//! The table of the near-cache, in all interleavings of a few threads.
//!
//! [loom](https://docs.rs/loom) runs each test once for every order of the operations on what threads share, and for
//! every value that the memory model lets them read. It takes the sources of the table as they are, with locks and
//! atomics of its own.

#[cfg(test)]
mod near;
#[cfg(test)]
mod tests;
