use std::time::Duration;

use redis::aio::MultiplexedConnection;

use super::{heartbeat::Heartbeat, watch::PrimaryWatch};
use crate::store::redis::wire::{address::Address, clock::ServerClock};

/// A new connection.
pub(crate) struct Connected {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) address: Address,
    pub(crate) clock: ServerClock,
    /// The time of one round trip.
    pub(crate) round_trip: Duration,
    /// The run of the server, if it was asked for.
    pub(crate) run_id: Option<String>,
    /// Whether a demotion of the server is noticed.
    pub(crate) role_watched: bool,
    /// Watches the server; dropped with the connection.
    pub(crate) _watch: PrimaryWatch,
    /// Renews the lease of a near-cache; dropped with the connection.
    pub(crate) _heartbeat: Option<Heartbeat>,
}
