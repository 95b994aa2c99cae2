//! What only a MySQL store can show: its tables, its statements, and how it gets to its server.

mod clock;
mod locks;
mod migrations;
mod purge;
mod round_trips;
mod secrets;
mod user_ids;

use crate::faults::eventually;
