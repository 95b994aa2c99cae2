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

    /// Returns the address of the server that is meant at the moment, if that is known.
    fn address(&self) -> Option<Address>;

    /// Returns the greatest age of a connection, if nobody else tells when the server is another one.
    fn max_age(&self, config: &LinkConfig) -> Option<Duration>;
}
