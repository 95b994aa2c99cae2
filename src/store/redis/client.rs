//! Where commands go, and what becomes of them.

use std::{fmt, iter, sync::Arc, time::Duration};

use redis::{FromRedisValue, Pipeline, Value};
use tokio::time::Instant;

use super::{
    Reply, Time,
    cluster::Cluster,
    confirm::Confirm,
    errors::server_code,
    health::RedisHealth,
    link::{Answer, Done, Failure, LinkConfig, OnDrop},
    live::Live,
    lookup::{Found, Sought},
    node::{Lane, Node},
    script::ScriptCall,
};
use crate::Error;

/// A handle; the connections close when the last one is gone.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    servers: Servers,
    config: Arc<LinkConfig>,
    confirm: Option<Confirm>,
}

pub(super) enum Servers {
    /// Always the same, or whichever is the master.
    One(Box<Node>),
    Cluster(Cluster),
}

impl Client {
    pub(super) fn new(servers: Servers, config: Arc<LinkConfig>, confirm: Option<Confirm>) -> Self {
        Self(Arc::new(Inner {
            servers,
            config,
            confirm,
        }))
    }

    /// Waits for the outcome of the first attempt to connect.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        match &self.0.servers {
            Servers::One(node) => node.requests.ready().await,
            Servers::Cluster(cluster) => cluster.ready().await,
        }
    }

    /// Looks a session and its user up, in one round trip.
    pub(super) async fn look_up(&self, sought: &Sought<'_>) -> Result<(Time, Reply, Reply), Error> {
        let deadline = self.deadline();
        let found = match &self.0.servers {
            Servers::One(node) => node.requests.look_up(deadline, sought).await,
            Servers::Cluster(cluster) => cluster.look_up(deadline, sought).await,
        };
        let read = found.and_then(Found::read);
        read.map_err(|failure| self.0.config.error(failure))
    }

    /// Sends commands in one round trip, about keys in the slot of `key`; again, if the connection drops.
    pub(super) async fn query<T: FromRedisValue>(
        &self,
        key: &str,
        lane: Lane,
        commands: &Pipeline,
    ) -> Result<Done<T>, Error> {
        let deadline = self.deadline();
        let answer = self.send(key, lane, deadline, commands, OnDrop::Retry);
        self.finish(answer.await)
    }

    /// Reads the next page of a list, from the server that the last one came from, if it can still be asked.
    pub(super) async fn query_page<T: FromRedisValue>(
        &self,
        key: &str,
        commands: &Pipeline,
        last: Option<&Arc<Live>>,
    ) -> Result<Done<T>, Error> {
        let (deadline, lane) = (self.deadline(), Lane::Lists);
        let answer = match (&self.0.servers, last) {
            (Servers::One(node), Some(live)) => {
                node.lane(lane).send_on(live, deadline, commands).await
            }
            _ => {
                self.send(key, lane, deadline, commands, OnDrop::Retry)
                    .await
            }
        };
        self.finish(answer)
    }

    /// Reads this key, to learn whether the server answers.
    pub(super) async fn ping(&self, key: &str) -> Result<(), Error> {
        let mut commands = Pipeline::with_capacity(1);
        commands.get(key);
        let done = self.query(key, Lane::Requests, &commands).await?;
        let (_,): (Reply,) = done.reply;
        Ok(())
    }

    /// Calls a script; teaches it to the server if need be.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        call: &ScriptCall,
        on_drop: OnDrop,
    ) -> Result<Done<T>, Error> {
        let (deadline, lane) = (self.deadline(), Lane::Requests);
        let by_sha = call.by_sha();
        let mut answer = self
            .send(call.key(), lane, deadline, &by_sha, on_drop)
            .await;
        if let Ok(Answer { values, .. }) = &answer
            && matches!(&values[..], [Value::ServerError(error)] if server_code(error) == "NOSCRIPT")
        {
            let by_source = call.by_source();
            answer = self
                .send(call.key(), lane, deadline, &by_source, on_drop)
                .await;
        }
        let Done {
            reply: [reply],
            live,
        } = self.finish(answer)?;
        Ok(Done { reply, live })
    }

    /// Waits until replicas have what was done at the key, if that is wanted.
    pub(super) async fn confirm(&self, key: &str, live: &Live) -> Result<(), Error> {
        let Some(wanted) = self.0.confirm else {
            return Ok(());
        };
        let own_key = iter::once(key.to_owned());
        match &self.0.servers {
            Servers::One(node) => node.confirmer().confirm(wanted, live, own_key).await,
            Servers::Cluster(cluster) => {
                let address = &live.connected.address;
                let node = cluster.node_at(address);
                // The slot of the key may be on the move, and then no node but the next one may make it anew.
                let prefix = key.split(":{").next().unwrap_or_default();
                let keys = own_key.chain(cluster.keys_at(address, prefix));
                node.confirmer().confirm(wanted, live, keys).await
            }
        }
    }

    pub(super) fn health(&self) -> RedisHealth {
        let primaries = match &self.0.servers {
            Servers::One(node) => node.health().into_iter().collect(),
            Servers::Cluster(cluster) => cluster.health(),
        };
        self.0.config.status.report(primaries)
    }

    /// How long one operation may take.
    pub(super) fn operation_timeout(&self) -> Duration {
        self.0.config.deadline
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.operation_timeout()
    }

    async fn send(
        &self,
        key: &str,
        lane: Lane,
        deadline: Instant,
        commands: &Pipeline,
        on_drop: OnDrop,
    ) -> Result<Answer, Failure> {
        match &self.0.servers {
            Servers::One(node) => node.lane(lane).send(deadline, commands, on_drop).await,
            Servers::Cluster(cluster) => cluster.send(key, lane, deadline, commands, on_drop).await,
        }
    }

    fn finish<T: FromRedisValue>(&self, answer: Result<Answer, Failure>) -> Result<Done<T>, Error> {
        let done = answer.and_then(Answer::read);
        done.map_err(|failure| self.0.config.error(failure))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.health(), f)
    }
}
