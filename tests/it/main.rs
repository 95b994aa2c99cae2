//! Everything that takes a real server, a real connection or a clock.

// Clippy takes only the test functions themselves, not what they call, for tests.
#![allow(clippy::unwrap_used)]

use test_harness as harness;

mod admin;
mod allocations;
mod conformance;
mod future_sizes;
mod model;
mod races;
mod regressions;
mod round_trips;
mod security;
mod stores;

mod account;
mod browser;
mod examples;
mod faults;
mod grpc;
mod http;
mod jwt;
mod loads;
mod memory_store;
mod mysql_store;
mod near;
mod redis_store;
mod rotation;
mod service;
mod session;
mod streams;
mod test_util;
mod versions;
