//! Watches a replica that a failover promotes, until it is the master.
//!
//! The sentinel that leads a failover tells a replica to become the master, announces that it has, and then finds out
//! by `INFO`, once a second, whether it did. Meanwhile there are two masters, and what the old one is told is lost. So
//! the replica itself is asked, until the sentinel knows.

use std::{sync::Arc, time::Duration};

use redis::{RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::Shared;
use crate::store::redis::wire::{address::Address, role::Role};

/// How often the replica is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// A task that asks a replica for its role; ends when this is dropped.
pub(super) struct Promotion(AbortHandle);

impl Promotion {
    /// Begins to ask the replica that this sentinel has told to become the master.
    pub(super) fn watch(shared: &Arc<Shared>, sentinel: &Address, replica: Address) -> Self {
        shared.note_promoted(sentinel, None);
        let watch = watch(Arc::clone(shared), sentinel.clone(), replica);
        Self(tokio::spawn(watch).abort_handle())
    }
}

async fn watch(shared: Arc<Shared>, sentinel: Address, replica: Address) {
    loop {
        let dialing = shared.nodes.dial(&replica, drop);
        if let Ok(Ok(mut connection)) = timeout(shared.timeout, dialing).await {
            // The sentinel has its clients closed.
            while let Ok(Ok(is_master)) = timeout(shared.timeout, is_master(&mut connection)).await
            {
                shared.note_promoted(&sentinel, is_master.then(|| replica.clone()));
                sleep(PAUSE).await;
            }
        }
        shared.note_promoted(&sentinel, None);
        sleep(PAUSE).await;
    }
}

/// Whether the server is a master by its own account.
async fn is_master(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let hello: Value = Role::question().query_async(connection).await?;
    Ok(Role::of(hello) == Role::Primary)
}

impl Drop for Promotion {
    fn drop(&mut self) {
        self.0.abort();
    }
}
