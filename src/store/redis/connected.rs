use redis::aio::MultiplexedConnection;

use super::{clock::ServerClock, dial::Address, watch::PrimaryWatch};

/// A new connection.
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) address: Address,
    pub(super) clock: ServerClock,
    /// The run of the server, if it was asked for.
    pub(super) run_id: Option<String>,
    /// Whether a demotion of the server is noticed.
    pub(super) role_watched: bool,
    /// Ends with the connection.
    pub(super) _watch: PrimaryWatch,
}
