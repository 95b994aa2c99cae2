//! What only a MySQL store can show: its tables, its statements, and how it gets to its server.

mod cancelled;
mod clock;
mod connections;
mod denied_logins;
mod failed_connects;
mod late_writes;
mod locks;
mod lost_replies;
mod many_sessions;
mod max_connections;
mod migrations;
mod misconfigured;
mod missing;
mod operations;
mod purge;
mod refused_writes;
mod round_trips;
mod secrets;
mod user_ids;

pub(crate) use self::many_sessions::fill;
use crate::faults::{eventually, everything};

/// The tables of a store, without their prefix.
const TABLES: [&str; 5] = ["schema", "sessions", "cutoffs", "users", "slots"];
