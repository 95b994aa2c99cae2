//! Supervised connections. This module does not depend on the topology: a [`Connect`] finds the server.
//!
//! Operations use a [`Link`](link::Link). A [supervisor](supervisor) maintains the connection of each link.

use std::{sync::Arc, time::Duration};

use self::{connected::Connected, link_config::LinkConfig, reports::Reporter};
use super::wire::address::Address;
use crate::Error;

pub(crate) mod connected;
pub(crate) mod health;
pub(crate) mod heartbeat;
pub(crate) mod link;
pub(crate) mod link_config;
pub(crate) mod live;
pub(crate) mod reports;
pub(crate) mod supervisor;
pub(crate) mod watch;

/// Finds a server and connects to it.
pub(crate) trait Connect: Send + Sync + 'static {
    /// Opens a new connection. The implementation reports to `reporter` when the connection is lost, when the server
    /// does not answer (even if the connection is idle), and when the server is no longer the primary.
    fn connect(
        &self,
        config: &Arc<LinkConfig>,
        reporter: &Reporter,
        max_block: Duration,
    ) -> impl Future<Output = Result<Connected, Error>> + Send;

    /// Returns the current address of the server, if it is known.
    fn address(&self) -> Option<Address>;

    /// Returns the maximum age of a connection; `None` if the source itself reports when the server changes.
    fn max_age(&self, config: &LinkConfig) -> Option<Duration>;
}
