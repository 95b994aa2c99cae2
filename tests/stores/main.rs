//! What every store does, and what each one does in its own way.

// Clippy takes only the test functions themselves, not what they call, for tests.
#![allow(clippy::unwrap_used)]

use support::{app, eventually, everything, harness, stores};

mod admin;
mod conformance;
mod loads;
mod memory_store;
mod model;
mod mysql_store;
mod near;
mod races;
mod redis_store;
mod regressions;
mod rotation;
mod round_trips;
mod security;
mod session;
mod versions;
