//! Asks all primaries whether they accept writes.

use std::sync::Arc;

use tokio::{task::JoinSet, time::Instant};

use super::{
    Cluster, DISAGREEMENT, NO_SLOTS, Shared, map::slot_of, redirect::Redirect, unavailable,
};
use crate::store::redis::{
    conn::link::{Failure, OnDrop, runtime_is_gone},
    keys::Keys,
    ops::ping,
    route::node::Node,
};

/// The maximum number of redirections that a ping follows.
const MAX_REDIRECTIONS: u32 = 2;

impl Cluster {
    /// Asks all primaries concurrently.
    pub(crate) async fn ping(&self, deadline: Instant, keys: &Keys) -> Result<(), Failure> {
        let map = self.map_by(deadline).await?;
        let mut pings = JoinSet::new();
        for (address, node) in map.primaries() {
            let holds = |key: &str| {
                let primary = map.primary(slot_of(key));
                primary.is_some_and(|(primary, _)| primary == address)
            };
            let Some(key) = keys.unused_key(holds) else {
                return Err(Failure::Down(unavailable("no key is in a slot of a node")));
            };
            let ping = Arc::clone(&self.shared).ping(Arc::clone(node), deadline, key);
            pings.spawn_on(ping, &self.shared.config.runtime);
        }
        if pings.is_empty() {
            return Err(Failure::Down(unavailable(NO_SLOTS)));
        }
        while let Some(pinged) = pings.join_next().await {
            pinged.unwrap_or_else(|_| Err(Failure::Down(runtime_is_gone())))?;
        }
        Ok(())
    }
}

impl Shared {
    /// Asks the primary of this key whether it accepts writes, beginning with `node`.
    async fn ping(
        self: Arc<Self>,
        mut node: Arc<Node>,
        deadline: Instant,
        key: String,
    ) -> Result<(), Failure> {
        let commands = ping::commands(&key);
        for _ in 0..=MAX_REDIRECTIONS {
            let answer = node
                .requests()
                .send(deadline, &commands, OnDrop::Retry)
                .await;
            let answer = answer.inspect_err(|_| self.outdated.notify_one())?;
            match Redirect::of_answer(&answer) {
                // Only the primary of a migrating slot replies with `ASK`.
                Some(Redirect::Ask(_)) => return Ok(()),
                Some(Redirect::Moved(address)) => {
                    self.outdated.notify_one();
                    node = self.node_at(address);
                }
                None => return ping::read(answer).inspect_err(|_| self.outdated.notify_one()),
            }
        }
        Err(Failure::Down(unavailable(DISAGREEMENT)))
    }
}
