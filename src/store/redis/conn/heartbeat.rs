//! Heartbeats, which renew the lease of a near-cache on one connection.

use std::{mem, sync::Arc};

use redis::{RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use super::{link_config::LinkConfig, reports::Reporter};
use crate::{
    Error, ErrorKind,
    store::redis::{
        near::tracking::{NotRenewed, Probes, Tracking},
        wire::{address::Address, fault::Fault},
    },
};

/// How many heartbeats may be on their way at the same time. Where a reply takes nearly as long as the lease lasts, one
/// after the other would leave gaps.
const IN_FLIGHT: usize = 3;

/// A task that sends heartbeats. Dropping the handle ends the task.
pub(crate) struct Heartbeat(AbortHandle);

/// What a heartbeat needs.
pub(crate) struct Beating {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) address: Address,
    pub(crate) config: Arc<LinkConfig>,
    pub(crate) tracking: Tracking,
}

/// A heartbeat that was sent, and its replies.
struct Beat {
    sent: u64,
    probes: Probes,
    replies: RedisResult<Vec<Value>>,
}

impl Heartbeat {
    /// Starts to send heartbeats, at a server that announces changes on this connection. The connection becomes suspect
    /// when the server does so no more: a new one begins with the command to announce changes.
    pub(crate) fn start(beating: Beating, reporter: Reporter) -> Self {
        let beat = async move {
            if beating.until_over().await {
                reporter.suspect();
            }
        };
        Self(tokio::spawn(beat).abort_handle())
    }
}

impl Beating {
    /// Sends heartbeats. Returns `true` if the server announces no changes any more, and `false` if the connection is
    /// lost, which the connection itself reports.
    async fn until_over(self) -> bool {
        let (mut probes, mut in_flight) = (Probes::new(), JoinSet::new());
        let mut is_in_trouble = false;
        let mut ticks = interval(self.tracking.interval());
        // After a pause they do not catch up, and stay apart.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let beat: Beat = tokio::select! {
                _ = ticks.tick(), if in_flight.len() < IN_FLIGHT => {
                    in_flight.spawn(self.beat(probes));
                    continue;
                }
                Some(Ok(beat)) = in_flight.join_next() => beat,
            };
            let Ok(replies) = beat.replies else {
                return false;
            };
            probes = beat.probes;
            match self.tracking.renew(beat.sent, replies, &mut probes) {
                Ok(()) => is_in_trouble = false,
                // It may pass: the server is loading its data, say. Until then the lease is not renewed.
                Err(NotRenewed::Error(error)) => {
                    // The node of a cluster holds other keys.
                    let is_trouble = !Fault::of(&error).is_of_another_node();
                    if is_trouble && !mem::replace(&mut is_in_trouble, true) {
                        let error = self.config.errors.convert_at(&self.address, &error);
                        self.config.status.note(&error);
                    }
                }
                Err(NotRenewed::NotTracking) => {
                    let address = &self.address;
                    let message = format!("the server announces no changes any more, at {address}");
                    let error = Error::new(ErrorKind::Unavailable, message);
                    self.config.status.note(&error);
                    return true;
                }
            }
        }
    }

    /// Sends one heartbeat.
    fn beat(&self, probes: Probes) -> impl Future<Output = Beat> + use<> {
        let (sent, commands) = (self.tracking.now(), self.tracking.heartbeat(&probes));
        let mut connection = self.connection.clone();
        async move {
            let replies = connection.send_packed_commands(&commands, 0, commands.len());
            let replies = replies.await;
            Beat {
                sent,
                probes,
                replies,
            }
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}
