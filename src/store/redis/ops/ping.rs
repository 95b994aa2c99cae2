//! Asking a server whether it is a primary that serves.

use redis::Pipeline;
use tokio::time::Instant;

use crate::store::redis::{
    conn::link::{Answer, Failure, Link, OnDrop},
    wire::fault::Fault,
};

/// A command that only primaries execute, and that changes nothing: `key` is one that nobody has.
pub(crate) fn commands(key: &str) -> Pipeline {
    let mut commands = Pipeline::with_capacity(1);
    commands.hdel(key, "");
    commands
}

/// What the answer says.
pub(crate) fn read(answer: Answer) -> Result<(), Failure> {
    match answer.read::<(u64,)>() {
        Ok(_) => Ok(()),
        // Primaries say so. They take no writes for now, but they answer checks.
        Err(Failure::Redis(error)) if Fault::of(&error) == Fault::NoWrites => Ok(()),
        Err(failure) => Err(failure),
    }
}

impl Link {
    /// Asks the server that this link is connected to.
    pub(crate) async fn ping(&self, deadline: Instant, key: &str) -> Result<(), Failure> {
        read(self.send(deadline, &commands(key), OnDrop::Retry).await?)
    }
}
