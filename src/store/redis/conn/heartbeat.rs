//! Heartbeats, which renew the lease of a near-cache on one connection.

use std::{mem, sync::Arc};

use redis::aio::MultiplexedConnection;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
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
const IN_FLIGHT: u32 = 3;

/// The tasks that send heartbeats. Dropping the handle ends them.
pub(crate) struct Heartbeat([AbortHandle; IN_FLIGHT as usize]);

/// What a heartbeat needs.
#[derive(Clone)]
pub(crate) struct Beating {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) address: Address,
    pub(crate) config: Arc<LinkConfig>,
    pub(crate) tracking: Tracking,
}

impl Heartbeat {
    /// Starts to send heartbeats, at a server that announces changes on this connection. The connection becomes suspect
    /// when the server does so no more: a new one begins with the command to announce changes.
    pub(crate) fn start(beating: &Beating, reporter: &Reporter) -> Self {
        let mut turn = 0;
        Self([(); IN_FLIGHT as usize].map(|()| {
            let (beating, reporter) = (beating.clone(), reporter.clone());
            let beat = async move {
                if beating.until_over(turn).await {
                    reporter.suspect();
                }
            };
            turn += 1;
            tokio::spawn(beat).abort_handle()
        }))
    }
}

impl Beating {
    /// Sends a heartbeat in every third interval. Returns `true` if the server announces no changes any more, and
    /// `false` if the connection is lost, which the connection itself reports.
    async fn until_over(mut self, turn: u32) -> bool {
        let mut probes = Probes::new();
        let mut is_in_trouble = false;
        let interval = self.tracking.interval();
        let mut next = Instant::now() + turn * interval;
        loop {
            sleep_until(next).await;
            // After a pause of the machine they do not catch up.
            next = Instant::now() + IN_FLIGHT * interval;
            let sent = self.tracking.now();
            let commands = self.tracking.heartbeat(&probes);
            let replies = self
                .connection
                .send_packed_commands(&commands, 0, commands.len());
            let Ok(replies) = replies.await else {
                return false;
            };
            match self.tracking.renew(sent, replies, &mut probes) {
                Ok(()) => is_in_trouble = false,
                // It may pass: the server is loading its data, say. Until then the lease is not renewed.
                Err(NotRenewed::Error(error)) => {
                    // The node of a cluster holds other keys.
                    let is_trouble = !Fault::of(&error).is_of_another_node();
                    if !is_trouble {
                        next = Instant::now() + interval;
                    }
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
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
