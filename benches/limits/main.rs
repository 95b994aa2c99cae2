//! What this crate costs, each figure as a ratio to its limit: the least that the same work could cost, measured in
//! the same run.
//!
//! `cargo bench -p benches` runs all groups and writes `benches/RESULTS.md`; `cargo bench -p benches -- http` runs one of
//! them. With `--features mysql` there are rows for MariaDB. The harness of the tests starts the servers.
//!
//! The usual harnesses run one benchmark after the other, so that whatever else the machine does meanwhile looks like a
//! difference between them. Here the variants of a group take turns, round by round, and each round begins with
//! another one: noise disturbs all alike. A ratio is the median of the ratios within each round. Nothing is asserted on
//! time.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

mod baseline;
mod bytes;
mod client;
mod cpu;
mod fill;
mod growth;
mod http;
mod in_process;
mod load;
#[cfg(feature = "mysql")]
mod mysql;
mod near;
mod overhead;
mod population;
mod redis;
mod report;
mod rounds;
mod stalls;
mod stores;
mod system_under_test;

use std::env;

use report::Report;
use test_harness as harness;

type Group = (&'static str, fn(&mut Report));

const GROUPS: [Group; 7] = [
    ("overhead", overhead::run),
    ("redis", redis::run),
    ("http", http::run),
    ("in-process", in_process::run),
    ("near", near::run),
    ("growth", growth::run),
    ("stores", stores::run),
];

fn main() {
    // Cargo itself adds `--bench`.
    let wanted = env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let groups: Vec<_> = GROUPS
        .into_iter()
        .filter(|(name, _)| is_wanted(name))
        .collect();
    assert!(
        !groups.is_empty(),
        "the groups are {:?}",
        GROUPS.map(|(name, _)| name)
    );
    let mut report = Report::new();
    for (_, run) in groups {
        run(&mut report);
    }
    if wanted.is_none() {
        report.save();
    }
}
