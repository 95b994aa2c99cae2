//! Announcements of failovers by a sentinel, over publish/subscribe.

use std::sync::{Mutex, PoisonError};

use redis::{PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection};
use tokio::sync::Notify;

use crate::store::redis::wire::{address::Address, fault::Fault};

/// The channel that every account at a sentinel has to be allowed.
const SWITCHED: &str = "+switch-master";
/// A replica was told to become the master.
const WAITS_FOR_PROMOTION: &str = "+failover-state-wait-promotion";
/// What is announced earlier than the switch, which in a planned failover is up to a second, and more if replicas are
/// slow to follow. An account that may not subscribe to these gets the news later.
const EARLIER: [&str; 4] = [
    WAITS_FOR_PROMOTION,
    // It has become the master; from now on the sentinel that leads the failover names it.
    "+promoted-slave",
    "+failover-state-reconf-slaves",
    // It has not, and the old master stays.
    "-failover-abort-slave-timeout",
];

/// The announcements about one service that a connection to a sentinel has received.
pub(super) struct News {
    service: String,
    changed: Notify,
    replica: Mutex<Option<Address>>,
}

impl News {
    pub(super) fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            changed: Notify::new(),
            replica: Mutex::default(),
        }
    }

    /// Receives a push message.
    pub(super) fn take(&self, push: PushInfo) {
        match push.kind {
            PushKind::Message => {
                let text = |value: Value| redis::from_redis_value::<String>(value).ok();
                let mut parts = push.data.into_iter().filter_map(text);
                let (channel, message) = (parts.next(), parts.next().unwrap_or_default());
                if !message.split(' ').any(|word| word == self.service) {
                    return;
                }
                if channel.as_deref() == Some(WAITS_FOR_PROMOTION) {
                    *self.replica() = promoted(&message, &self.service);
                }
            }
            PushKind::Disconnection => {}
            _ => return,
        }
        self.changed.notify_one();
    }

    /// Waits until there are news; returns the replica that was told to become the master, if that was among them.
    pub(super) async fn changed(&self) -> Option<Address> {
        self.changed.notified().await;
        self.replica().take()
    }

    fn replica(&self) -> std::sync::MutexGuard<'_, Option<Address>> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscribes to all channels that the account may read.
pub(super) async fn subscribe(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    connection.subscribe(SWITCHED).await?;
    // The server refuses the whole command if one channel is not allowed.
    if denied(connection.subscribe(&EARLIER[..]).await)? {
        for channel in EARLIER {
            denied(connection.subscribe(channel).await)?;
        }
    }
    Ok(())
}

/// Whether the account lacks the right.
fn denied(outcome: RedisResult<()>) -> RedisResult<bool> {
    match outcome {
        Ok(()) => Ok(false),
        Err(error) if Fault::of(&error) == Fault::NoPermission => Ok(true),
        Err(error) => Err(error),
    }
}

/// Reads `slave <name> <host> <port> @ <service> <host of the master> <port of the master>`.
fn promoted(message: &str, service: &str) -> Option<Address> {
    let words: Vec<&str> = message.split(' ').collect();
    match words[..] {
        ["slave", _, host, port, "@", of, _, _] if of == service => {
            Address::new(host, port.parse().ok()?)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promoted_replica_is_read_from_the_announcement() {
        let at = |host: &str, port| {
            let host = host.to_owned();
            Some(Address { host, port })
        };
        for (message, expected) in [
            (
                "slave 10.0.0.2:6380 10.0.0.2 6380 @ mymaster 10.0.0.1 6379",
                at("10.0.0.2", 6380),
            ),
            (
                "slave [::2]:6380 ::2 6380 @ mymaster ::1 6379",
                at("::2", 6380),
            ),
            (
                "slave 10.0.0.2:6380 10.0.0.2 6380 @ other 10.0.0.1 6379",
                None,
            ),
            ("slave x 10.0.0.2 x @ mymaster 10.0.0.1 6379", None),
            ("master mymaster 10.0.0.1 6379", None),
            ("", None),
        ] {
            assert_eq!(promoted(message, "mymaster"), expected, "{message}");
        }
    }
}
