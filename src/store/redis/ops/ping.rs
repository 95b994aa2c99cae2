//! Pings: whether a server is a primary that serves.

use redis::Pipeline;
use tokio::time::Instant;

use crate::store::redis::{
    conn::link::{Answer, Failure, Link, OnDrop},
    wire::fault::Fault,
};

/// A command that only primaries execute, and that changes nothing: `key` does not exist.
pub(crate) fn commands(key: &str) -> Pipeline {
    let mut commands = Pipeline::with_capacity(1);
    commands.hdel(key, "");
    commands
}

/// Reads the reply.
pub(crate) fn read(answer: Answer) -> Result<(), Failure> {
    match answer.read::<(u64,)>() {
        Ok(_) => Ok(()),
        // Only a primary answers so. It takes no writes for now, but it answers checks.
        Err(Failure::Redis(error)) if Fault::of(&error) == Fault::NoWrites => Ok(()),
        Err(failure) => Err(failure),
    }
}

impl Link {
    /// Pings the server of this link.
    pub(crate) async fn ping(&self, deadline: Instant, key: &str) -> Result<(), Failure> {
        read(self.send(deadline, &commands(key), OnDrop::Retry).await?)
    }
}
