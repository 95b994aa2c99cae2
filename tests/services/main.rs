//! Services as their clients see them, and what a request costs them.

// Clippy takes only the test functions themselves, not what they call, for tests.
#![allow(clippy::unwrap_used)]

use support::{harness, stores};

mod account;
mod allocations;
mod browser;
mod examples;
mod future_sizes;
mod grpc;
mod http;
mod jwt;
mod service;
mod streams;
mod test_util;
