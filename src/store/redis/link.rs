//! Commands on a supervised connection.

use std::{sync::Arc, time::Duration};

use redis::{FromRedisValue, Pipeline, RedisError, Value};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{
    dial::{Address, Dialer},
    errors::{ErrorText, another_connection_may_cure},
    health::Status,
    lookup::Lookups,
    supervisor::{Live, Reports, State, Supervisor},
    topology::Source,
};
use crate::{Error, ErrorKind};

/// How to connect, whatever the server.
pub(super) struct LinkConfig {
    /// Where the supervisor runs, whoever happens to need the link first.
    pub(super) runtime: Handle,
    pub(super) dialer: Dialer,
    /// A key to read before a connection is used.
    pub(super) probe: String,
    /// How long writes may wait for replicas, if they do: then every server is asked who it is.
    pub(super) confirm: Option<Duration>,
    pub(super) connect_timeout: Duration,
    pub(super) deadline: Duration,
    pub(super) errors: ErrorText,
    pub(super) status: Arc<Status>,
}

/// What to do with commands whose connection drops before they are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDrop {
    /// Send them again, once: doing them twice, and late, does no harm.
    Retry,
    /// Give up: the first ones may still be on their way, and arrive after their effect was undone.
    Fail,
}

/// The connection closes when this is dropped.
pub(super) struct Link {
    pub(super) config: Arc<LinkConfig>,
    pub(super) lookups: Lookups,
    state: watch::Receiver<State>,
    reports: Reports,
    supervisor: AbortHandle,
}

/// One value for each command, errors included, and the connection that they came from.
pub(super) struct Answer {
    pub(super) values: Vec<Value>,
    pub(super) live: Arc<Live>,
}

/// What the commands returned, and the connection that it came from.
pub(super) struct Done<T> {
    pub(super) reply: T,
    pub(super) live: Arc<Live>,
}

/// Why there is no answer.
pub(super) enum Failure {
    Redis(RedisError),
    Down(Error),
    Deadline,
}

impl Link {
    /// Starts to connect, in a task of its own.
    pub(super) fn start(config: &Arc<LinkConfig>, source: Source) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let reports = Reports::new();
        let supervisor = Supervisor {
            source,
            config: Arc::clone(config),
            state: sender,
            reports: reports.clone(),
        };
        Self {
            config: Arc::clone(config),
            lookups: Lookups::default(),
            state,
            reports,
            supervisor: config.runtime.spawn(supervisor.run()).abort_handle(),
        }
    }

    /// Waits for the outcome of the first attempt to connect.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        self.live_after(0).await.map(drop)
    }

    /// Sends the commands of one operation in one round trip.
    pub(super) async fn send(
        &self,
        deadline: Instant,
        commands: &Pipeline,
        on_drop: OnDrop,
    ) -> Result<Answer, Failure> {
        self.send_all(deadline, commands, on_drop, 1).await
    }

    /// Sends the commands of so many operations in one round trip.
    pub(super) async fn send_all(
        &self,
        deadline: Instant,
        commands: &Pipeline,
        on_drop: OnDrop,
        operations: u32,
    ) -> Result<Answer, Failure> {
        let mut live = self.live_until(deadline, 0).await?;
        let mut retry = on_drop == OnDrop::Retry;
        loop {
            let sent = Instant::now();
            let mut connection = live.connected.connection.clone();
            let sending = connection.send_packed_commands(commands, 0, commands.len());
            let failure = match timeout_at(deadline, sending).await {
                // A server that was deposed meanwhile may do what a frozen one had queued.
                Ok(Ok(_)) if live.is_lost() => Failure::Down(deposed()),
                Ok(Ok(values)) => {
                    live.silence.ends();
                    for value in &values {
                        if let Value::ServerError(error) = value {
                            self.judge(&live, &error.clone().into());
                        }
                    }
                    return Ok(Answer { values, live });
                }
                Ok(Err(error)) => {
                    self.judge(&live, &error);
                    if !error.is_io_error() {
                        return Err(Failure::Redis(error));
                    }
                    Failure::Redis(error)
                }
                Err(_) => {
                    let (waited, deadline) = (sent.elapsed(), self.config.deadline);
                    if live.silence.goes_on(waited, deadline, operations) {
                        self.reports.suspect(live.generation);
                        let error = self.config.error(Failure::Deadline);
                        self.config.status.note(&error);
                    }
                    return Err(Failure::Deadline);
                }
            };
            if !retry {
                return Err(failure);
            }
            retry = false;
            live = self.live_until(deadline, live.generation).await?;
        }
    }

    /// Whether commands would be sent now, and to where.
    pub(super) fn connected_to(&self) -> Option<Address> {
        match &*self.state.borrow() {
            State::Up(live) if !live.is_lost() => Some(live.connected.address.clone()),
            State::Up(_) | State::Connecting | State::Down(_) => None,
        }
    }

    fn judge(&self, live: &Live, error: &RedisError) {
        if another_connection_may_cure(error) {
            self.reports.suspect(live.generation);
            let address = &live.connected.address;
            let error = self.config.errors.convert_at(address, error);
            self.config.status.note(&error);
        }
    }

    async fn live_until(&self, deadline: Instant, broken: u64) -> Result<Arc<Live>, Failure> {
        match timeout_at(deadline, self.live_after(broken)).await {
            Ok(live) => live.map_err(Failure::Down),
            Err(_) => Err(Failure::Deadline),
        }
    }

    /// The connection, if it is of a later generation than `broken`; else the next one.
    async fn live_after(&self, broken: u64) -> Result<Arc<Live>, Error> {
        if let Some(verdict) = self.state.borrow().verdict(broken) {
            return verdict;
        }
        let mut state = self.state.clone();
        let state = state.wait_for(|state| state.verdict(broken).is_some());
        let verdict = state.await.ok().and_then(|state| state.verdict(broken));
        verdict.unwrap_or_else(|| Err(runtime_is_gone()))
    }
}

impl Answer {
    /// What the commands returned, or the first error among it; and the connection that it came from.
    pub(super) fn read<T: FromRedisValue>(self) -> Result<Done<T>, Failure> {
        let values = Value::Array(self.values).extract_error();
        let read = values.and_then(|values| Ok(redis::from_redis_value(values)?));
        let reply = read.map_err(Failure::Redis)?;
        let live = self.live;
        Ok(Done { reply, live })
    }
}

impl LinkConfig {
    /// What to tell the caller.
    pub(super) fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Redis(error) => self.errors.convert(&error),
            Failure::Down(error) => error,
            Failure::Deadline => Error::new(
                ErrorKind::Timeout,
                format!("no answer from Redis within {:?}", self.deadline),
            ),
        }
    }
}

fn deposed() -> Error {
    let message = "the connection to Redis was given up before the answer came";
    Error::new(ErrorKind::Unavailable, message)
}

/// What operations get when nobody connects any more.
pub(super) fn runtime_is_gone() -> Error {
    let message = "the runtime in which the Redis store was made is gone";
    Error::new(ErrorKind::Unavailable, message)
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}
