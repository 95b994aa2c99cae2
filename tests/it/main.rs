//! Everything that takes a real server, a real connection or a clock.

mod harness;

mod conformance;
mod model;
mod races;
mod regressions;
mod round_trips;
mod security;
mod stores;

mod faults;
mod http;
mod loads;
mod memory_store;
mod redis_store;
mod service;
