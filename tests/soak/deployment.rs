//! What the deployments have in common.

use std::time::Duration;

use tower_bearer_session::SessionStore;

use crate::{growth::Spare, random::Random};

/// Servers that are made to fail; they, and what makes them fail, have a runtime of their own.
pub(crate) trait Deployment: Sized + Send + Sync {
    type Store: SessionStore + Clone;

    const NAME: &'static str;
    /// Whether a failover loses what was acknowledged but not confirmed.
    const MAY_LOSE: bool;
    /// How long nobody has to do anything until connections that are not used any more are closed.
    const CALM: Duration;
    /// What may be more in the end.
    const SPARE: Spare = Spare::FEW;
    /// The kinds of faults.
    const FAULTS: &'static [&'static str];

    async fn start() -> Self;

    /// Where a service connects to, the first or the second one.
    fn url(&self, service: usize) -> String;

    /// Connects a service, on the runtime of that service.
    async fn connect(url: String) -> Self::Store;

    /// Makes something fail, and mends it: when this returns, the servers are whole again.
    async fn fail(&self, fault: &str, random: &mut Random);

    /// Whether a fault may undo what is not sure.
    fn loses(fault: &str) -> bool;

    /// The servers that take the writes, by their ports: another one means that there was a failover.
    async fn primaries(&self) -> Vec<u16> {
        Vec::new()
    }
}

/// How long a fault lasts.
pub(crate) fn a_while(random: &mut Random) -> Duration {
    random.millis(50, 1500)
}
