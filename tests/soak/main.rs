//! Faults at random, for as long as one likes: on every kind of deployment, two services log users in and out all the
//! time, while servers die, hang, fail over and lose their connections.
//!
//! - No answer is wrong: see [`model`] for what must hold, and [`losses`] for what a failover may undo.
//! - Errors are faults of the store: `Unavailable`, `Timeout` or `Unconfirmed`.
//! - When the servers are well, every store is, within 20 seconds.
//! - Nothing grows: neither the bytes that are alive, nor tasks, nor file descriptors.
//!
//! `SOAK_SECONDS` is the length for each deployment, and `SOAK_SEED` repeats the faults of another run.

mod cluster;
mod deployment;
mod growth;
mod losses;
mod mariadb;
mod model;
mod operations;
mod random;
mod rounds;
mod scene;
mod sentinel;
mod service;
mod standalone;
mod values;
mod worker;

use support::{harness, stores};

use self::rounds::soak;

#[test]
fn redis_standalone() {
    soak::<standalone::Standalone>();
}

#[test]
fn redis_sentinel() {
    soak::<sentinel::Sentinel>();
}

#[test]
fn redis_cluster() {
    soak::<cluster::Clustered>();
}

#[test]
fn mariadb() {
    soak::<mariadb::Maria>();
}
