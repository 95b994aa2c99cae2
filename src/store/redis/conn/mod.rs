//! Supervised connections, which know no topology: a [`Connect`] tells where the server is.
//!
//! A [`Link`](link::Link) is what operations use. A [supervisor](supervisor) keeps a connection for it.

use std::{sync::Arc, time::Duration};

use self::{connected::Connected, link_config::LinkConfig, reports::Reporter};
use super::wire::address::Address;
use crate::Error;

pub(crate) mod connected;
pub(crate) mod health;
pub(crate) mod link;
pub(crate) mod link_config;
pub(crate) mod live;
pub(crate) mod reports;
pub(crate) mod supervisor;
pub(crate) mod watch;

/// Finds a server and connects to it.
pub(crate) trait Connect: Send + Sync + 'static {
    /// Connects anew. The reporter is told when the connection is lost, when its server does not answer, even if the
    /// connection is idle, and when its server is no longer the primary.
    fn connect(
        &self,
        config: &Arc<LinkConfig>,
        reporter: &Reporter,
        max_block: Duration,
    ) -> impl Future<Output = Result<Connected, Error>> + Send;

    /// Returns the current address of the server, if it is known.
    fn address(&self) -> Option<Address>;

    /// Returns the maximum age of a connection; `None` if another way tells when the address leads to another server.
    fn max_age(&self, config: &LinkConfig) -> Option<Duration>;
}
