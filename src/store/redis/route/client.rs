//! The client of a store: sends each operation to the server that holds its keys.

use std::{fmt, iter, sync::Arc, time::Duration};

use redis::{FromRedisValue, Pipeline, Value};
use tokio::time::Instant;

use super::{
    cluster::{Cluster, map::slot_of},
    node::{Lane, Node},
};
use crate::{
    Error,
    store::{
        config::MAX_PAGES_DEADLINES,
        redis::{
            conn::{
                health::RedisHealth,
                link::{Answer, Done, Failure, OnDrop},
                link_config::LinkConfig,
                live::Live,
            },
            keys::Keys,
            near::lease::Lease,
            ops::{
                confirm::Confirm,
                lookup::LookupKeys,
                reply::{Found, LookupReply},
                scan::{KeyPage, ScanPosition},
                write::{Request, Write},
            },
            wire::{
                fault::Fault,
                script::{self, By, ScriptCall},
            },
        },
    },
};

/// A handle to the connections of a store. Dropping the last handle closes them.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    servers: Servers,
    config: Arc<LinkConfig>,
    confirm: Option<Confirm>,
}

pub(crate) enum Servers {
    /// One server: a fixed one, or the current master.
    One(Box<Node>),
    Cluster(Cluster),
}

impl Client {
    pub(crate) fn new(servers: Servers, config: Arc<LinkConfig>, confirm: Option<Confirm>) -> Self {
        Self(Arc::new(Inner {
            servers,
            config,
            confirm,
        }))
    }

    /// Waits for the outcome of the first attempt to connect.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        match &self.0.servers {
            Servers::One(node) => node.requests().ready().await,
            Servers::Cluster(cluster) => cluster.ready().await,
        }
    }

    /// Looks up a session and its user in one round trip.
    pub(crate) async fn look_up(&self, keys: &LookupKeys<'_>) -> Result<Found, Error> {
        let deadline = self.deadline();
        let found = match &self.0.servers {
            Servers::One(node) => node.lookups.look_up(deadline, keys).await,
            Servers::Cluster(cluster) => cluster.look_up(deadline, keys).await,
        };
        let read = found.and_then(LookupReply::read);
        read.map_err(|failure| self.0.config.error(failure))
    }

    /// Sends commands for keys in the slot of `key` in one round trip, and once more if the connection drops.
    pub(crate) async fn query<T: FromRedisValue>(
        &self,
        key: &str,
        lane: Lane,
        commands: &Pipeline,
    ) -> Result<Done<T>, Error> {
        let deadline = self.deadline();
        let answer = self.send(key, lane, deadline, Request::Read(commands));
        let done = answer.await.and_then(Answer::read);
        done.map_err(|failure| self.0.config.error(failure))
    }

    /// Reads the next page of a list on the connection of the previous page, if it is still usable.
    pub(crate) async fn query_page<T: FromRedisValue>(
        &self,
        key: &str,
        commands: &Pipeline,
        last: Option<&Arc<Live>>,
        deadline: Instant,
    ) -> Result<Done<T>, Error> {
        let deadline = deadline.min(self.deadline());
        let answer = match (&self.0.servers, last) {
            (Servers::One(node), Some(live)) => {
                let link = node.lane(Lane::Lists);
                link.send_on(live, deadline, commands).await
            }
            _ => {
                let request = Request::Read(commands);
                self.send(key, Lane::Lists, deadline, request).await
            }
        };
        let done = answer.and_then(Answer::read);
        done.map_err(|failure| self.0.config.error(failure))
    }

    /// Reads a page of the keys of all sessions, from the first page on or from this place.
    pub(crate) async fn scan(
        &self,
        keys: &Keys,
        place: Option<ScanPosition>,
    ) -> Result<KeyPage, Error> {
        let deadline = self.deadline();
        let place = place.unwrap_or_default();
        let page = match &self.0.servers {
            Servers::One(node) => {
                let (pattern, probe) = (keys.sessions_pattern(), keys.probe());
                let link = node.lane(Lane::Lists);
                link.scan(deadline, &pattern, &place, &probe).await
            }
            Servers::Cluster(cluster) => cluster.scan(deadline, keys, &place).await,
        };
        page.map_err(|failure| self.0.config.error(failure))
    }

    /// Calls a script that writes, within the deadline of an operation. Loads the script into the server if needed.
    pub(crate) async fn write<T: FromRedisValue>(
        &self,
        call: &ScriptCall,
        on_drop: OnDrop,
    ) -> Result<Done<T>, Error> {
        self.write_until(call, on_drop, self.deadline()).await
    }

    /// Like [`write`](Self::write), but also fails at `until` if that is earlier than the deadline of an operation.
    pub(crate) async fn write_until<T: FromRedisValue>(
        &self,
        call: &ScriptCall,
        on_drop: OnDrop,
        deadline: Instant,
    ) -> Result<Done<T>, Error> {
        let deadline = deadline.min(self.deadline());
        let written = self.try_write(call, on_drop, deadline).await;
        written.map_err(|failure| self.0.config.error(failure))
    }

    async fn try_write<T: FromRedisValue>(
        &self,
        call: &ScriptCall,
        on_drop: OnDrop,
        deadline: Instant,
    ) -> Result<Done<T>, Failure> {
        let (mut by, mut was_repeated) = (By::Sha, false);
        loop {
            let request = Request::Write(Write::new(call, by, on_drop));
            let answer = self.send(call.key(), Lane::Requests, deadline, request);
            let answer = answer.await?;
            was_repeated |= answer.repeated;
            if by == By::Sha
                && matches!(&answer.values[..], [reply] if Fault::of_reply(reply) == Some(Fault::UnknownScript))
            {
                by = By::Source;
                continue;
            }
            let Done { reply, live, .. } = answer.read::<[Value; 1]>()?;
            let [reply] = reply;
            let (time, result) = script::read(reply).map_err(Failure::Redis)?;
            live.note_time(time);
            if let Some(result) = result {
                let reply = redis::from_redis_value(result);
                return Ok(Done {
                    reply: reply.map_err(|error| Failure::Redis(error.into()))?,
                    live,
                    repeated: was_repeated,
                });
            }
            // The server got the write after its deadline, which was computed from an estimate of the server's clock.
            // The reply has improved the estimate.
            if Instant::now() >= deadline {
                return Err(Failure::Deadline);
            }
        }
    }

    /// Asks every primary whether it accepts writes.
    pub(crate) async fn ping(&self, keys: &Keys) -> Result<(), Error> {
        let deadline = self.deadline();
        let pinged = match &self.0.servers {
            Servers::One(node) => node.requests().ping(deadline, &keys.probe()).await,
            Servers::Cluster(cluster) => cluster.ping(deadline, keys).await,
        };
        pinged.map_err(|failure| self.0.config.error(failure))
    }

    /// Waits until replicas have acknowledged the writes to this key, if `confirm_replicas` is set.
    pub(crate) async fn confirm(&self, key: &str, live: &Live) -> Result<(), Error> {
        let Some(wanted) = self.0.confirm else {
            return Ok(());
        };
        let own_key = iter::once(key.to_owned());
        match &self.0.servers {
            Servers::One(node) => node.confirmer().confirm(wanted, live, own_key).await,
            Servers::Cluster(cluster) => {
                let address = &live.connected.address;
                let node = cluster.node_at(address);
                // While the slot of the key migrates, this node does not create a missing key there: it redirects to
                // the target node. So keys in other slots of this node are alternatives.
                let prefix = key.split(":{").next().unwrap_or_default();
                let keys = own_key.chain(cluster.keys_at(address, prefix));
                node.confirmer().confirm(wanted, live, keys).await
            }
        }
    }

    /// The slot of a key; `None` without a cluster.
    pub(crate) fn slot(&self, key: &str) -> Option<u16> {
        self.is_cluster().then(|| slot_of(key))
    }

    /// Whether a lookup for this slot would be sent on the connection with this lease.
    pub(crate) fn is_current(&self, lease: &Arc<Lease>, slot: Option<u16>) -> bool {
        match (&self.0.servers, slot) {
            // The lease of a connection ends when it is replaced.
            (Servers::One(_), _) => true,
            (Servers::Cluster(cluster), Some(slot)) => cluster.is_current(lease, slot),
            (Servers::Cluster(_), None) => false,
        }
    }

    /// Whether the servers are a cluster, whose slots may move.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.0.servers, Servers::Cluster(_))
    }

    pub(crate) fn health(&self) -> RedisHealth {
        let primaries = match &self.0.servers {
            Servers::One(node) => node.health().into_iter().collect(),
            Servers::Cluster(cluster) => cluster.health(),
        };
        let near = self.0.config.near.as_ref().map(|near| near.health());
        self.0.config.status.report(primaries, near)
    }

    /// The time limit of an operation that reads or ends all sessions of a user, page by page.
    pub(crate) fn pages_timeout(&self) -> Duration {
        self.0.config.deadline * MAX_PAGES_DEADLINES
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.0.config.deadline
    }

    async fn send(
        &self,
        key: &str,
        lane: Lane,
        deadline: Instant,
        request: Request<'_>,
    ) -> Result<Answer, Failure> {
        match &self.0.servers {
            Servers::One(node) => node.lane(lane).request(deadline, request).await,
            Servers::Cluster(cluster) => cluster.send(key, lane, deadline, request).await,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.health(), f)
    }
}
