//! Sends commands on a supervised connection.

use std::{pin::pin, sync::Arc, time::Duration};

use redis::{FromRedisValue, Pipeline, RedisError, Value};
use tokio::{
    sync::{Mutex, watch},
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Connect,
    link_config::LinkConfig,
    live::{Live, State},
    reports::Reports,
    supervisor::Supervisor,
};
use crate::{
    Error, ErrorKind,
    store::redis::{
        near::{Near, lease::Lease},
        wire::fault::Fault,
    },
};

/// The policy for commands whose connection drops before the reply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDrop {
    /// Send the commands once more. Only for commands that are safe to execute twice, and late.
    Retry,
    /// Return the error.
    Fail,
}

/// A supervised connection to one server. Dropping the link closes the connection.
pub(crate) struct Link {
    pub(crate) config: Arc<LinkConfig>,
    state: watch::Receiver<State>,
    supervisor: AbortHandle,
}

/// The reply to each command, errors included, and the connection on which they arrived.
pub(crate) struct Answer {
    pub(crate) values: Vec<Value>,
    pub(crate) live: Arc<Live>,
    /// Whether the commands were sent twice: the server may have executed the first copy as well.
    pub(crate) repeated: bool,
}

/// The decoded reply of an operation, and the connection on which it arrived.
pub(crate) struct Done<T> {
    pub(crate) reply: T,
    pub(crate) live: Arc<Live>,
    /// As in [`Answer`].
    pub(crate) repeated: bool,
}

/// The reason why an attempt on one connection failed.
pub(crate) enum Lost {
    /// Another connection may succeed.
    Connection(Failure),
    Answer(Failure),
}

/// The reason why an operation failed.
pub(crate) enum Failure {
    Redis(RedisError),
    Down(Error),
    Deadline,
    /// The answer came after the deadline.
    Late,
    /// The server has too much to do already.
    Overloaded,
}

impl Link {
    /// Starts a supervisor, which connects in its own task. Links with the same `dialing` connect one at a time. A
    /// command may block the connection for up to `max_block`. Lookups on it fill the near-cache `near`.
    pub(crate) fn start(
        config: &Arc<LinkConfig>,
        source: impl Connect,
        dialing: &Arc<Mutex<()>>,
        max_block: Duration,
        near: Option<Arc<Near>>,
    ) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let supervisor = Supervisor {
            source,
            config: Arc::clone(config),
            dialing: Arc::clone(dialing),
            max_block,
            near,
            state: sender,
            reports: Reports::new(),
        };
        Self {
            config: Arc::clone(config),
            state,
            supervisor: config.runtime.spawn(supervisor.run()).abort_handle(),
        }
    }

    /// Waits for the outcome of the first attempt to connect.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        self.live_after(0).await.map(drop)
    }

    /// Sends the commands of one operation in one round trip.
    pub(crate) async fn send(
        &self,
        deadline: Instant,
        commands: &Pipeline,
        on_drop: OnDrop,
    ) -> Result<Answer, Failure> {
        let live = self.live_until(deadline, 0).await?;
        self.send_from(live, deadline, commands, on_drop, Duration::ZERO)
            .await
    }

    /// Sends the commands of one operation like [`send`](Self::send), on the connection `live` even if it has been
    /// replaced in the meantime. If that connection is lost, the commands go to its successor.
    pub(crate) async fn send_on(
        &self,
        live: &Arc<Live>,
        deadline: Instant,
        commands: &Pipeline,
    ) -> Result<Answer, Failure> {
        let live = match live.is_lost() {
            true => self.live_until(deadline, live.generation()).await?,
            false => Arc::clone(live),
        };
        self.send_from(live, deadline, commands, OnDrop::Retry, Duration::ZERO)
            .await
    }

    /// Sends commands in one round trip, first on this connection. After the deadline it waits up to `linger` for a late
    /// reply, which it only records.
    pub(crate) async fn send_from(
        &self,
        mut live: Arc<Live>,
        deadline: Instant,
        commands: &Pipeline,
        on_drop: OnDrop,
        linger: Duration,
    ) -> Result<Answer, Failure> {
        let mut repeated = false;
        loop {
            match self.send_once(&live, deadline, commands, linger).await {
                Ok(values) => {
                    return Ok(Answer {
                        values,
                        live,
                        repeated,
                    });
                }
                Err(Lost::Connection(_)) if on_drop == OnDrop::Retry && !repeated => {}
                Err(Lost::Connection(failure) | Lost::Answer(failure)) => return Err(failure),
            }
            repeated = true;
            live = self.live_until(deadline, live.generation()).await?;
        }
    }

    /// Sends commands once, on this connection. After the deadline it waits up to `linger` for a late reply, which it
    /// only records.
    pub(crate) async fn send_once(
        &self,
        live: &Live,
        deadline: Instant,
        commands: &Pipeline,
        linger: Duration,
    ) -> Result<Vec<Value>, Lost> {
        let mut connection = live.connected.connection.clone();
        let mut sending = pin!(connection.send_packed_commands(commands, 0, commands.len()));
        match timeout_at(deadline, &mut sending).await {
            // The connection was given up in the meantime: the reply may come from a server that is no longer the
            // primary.
            Ok(Ok(_)) if live.is_lost() => Err(Lost::Connection(Failure::Down(deposed()))),
            Ok(Ok(values)) => {
                live.record_reply();
                for value in &values {
                    if let Value::ServerError(error) = value {
                        self.report_if_lost(live, &error.clone().into());
                    }
                }
                Ok(values)
            }
            Ok(Err(error)) => {
                self.report_if_lost(live, &error);
                let dropped = error.is_io_error();
                let failure = Failure::Redis(error);
                Err(match dropped {
                    true => Lost::Connection(failure),
                    false => Lost::Answer(failure),
                })
            }
            Err(_) => {
                if !linger.is_zero()
                    && let Ok(Ok(_)) = timeout(linger, &mut sending).await
                {
                    live.record_reply();
                    return Err(Lost::Answer(Failure::Late));
                }
                Err(Lost::Answer(Failure::Deadline))
            }
        }
    }

    /// Returns the connection that a new operation would use; `None` if there is none.
    pub(crate) fn in_use(&self) -> Option<Arc<Live>> {
        // Fails when the supervisor is gone, because its runtime has ended.
        self.state.has_changed().ok()?;
        match &*self.state.borrow() {
            State::Up(live) if !live.is_lost() => Some(Arc::clone(live)),
            State::Up(_) | State::Connecting | State::Down(_) => None,
        }
    }

    /// Whether this lease is that of the connection in use.
    pub(crate) fn is_lease(&self, lease: &Arc<Lease>) -> bool {
        match &*self.state.borrow() {
            State::Up(live) => live.lease().is_some_and(|held| Arc::ptr_eq(held, lease)),
            State::Connecting | State::Down(_) => false,
        }
    }

    fn report_if_lost(&self, live: &Live, error: &RedisError) {
        let fault = Fault::of(error);
        // A cluster may stay down for long: a new connection that gets the same reply is not replaced at once.
        let may_be_replaced = fault == Fault::ClusterDown && live.is_stable();
        if fault.another_connection_may_help() || may_be_replaced {
            if fault == Fault::Replica {
                live.give_up();
            } else {
                live.suspect();
            }
            let address = &live.connected.address;
            let error = self.config.errors.convert_at(address, error);
            self.config.status.note(&error);
        }
    }

    /// Returns a connection of a later generation than `broken`. Waits for one until the deadline.
    pub(crate) async fn live_until(
        &self,
        deadline: Instant,
        broken: u64,
    ) -> Result<Arc<Live>, Failure> {
        if let Some(verdict) = self.state.borrow().verdict(broken) {
            return verdict.map_err(Failure::Down);
        }
        // Boxed, so that the futures of all operations are small.
        match timeout_at(deadline, Box::pin(self.live_after(broken))).await {
            Ok(live) => live.map_err(Failure::Down),
            Err(_) => Err(Failure::Deadline),
        }
    }

    /// Waits for a connection of a later generation than `broken`, or for a failed attempt to connect.
    async fn live_after(&self, broken: u64) -> Result<Arc<Live>, Error> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| state.verdict(broken).is_some());
        let verdict = state.await.ok().and_then(|state| state.verdict(broken));
        verdict.unwrap_or_else(|| Err(runtime_is_gone()))
    }
}

impl Answer {
    /// Decodes the replies. Fails with the first error among them.
    pub(crate) fn read<T: FromRedisValue>(self) -> Result<Done<T>, Failure> {
        let values = Value::Array(self.values).extract_error();
        let read = values.and_then(|values| Ok(redis::from_redis_value(values)?));
        let reply = read.map_err(Failure::Redis)?;
        Ok(Done {
            reply,
            live: self.live,
            repeated: self.repeated,
        })
    }
}

impl LinkConfig {
    /// Converts a failure into the error for the caller.
    pub(crate) fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Redis(error) => self.errors.convert(&error),
            Failure::Down(error) => error,
            Failure::Deadline | Failure::Late => Error::new(
                ErrorKind::Timeout,
                format!("no answer from Redis within {:?}", self.deadline),
            ),
            Failure::Overloaded => Error::new(
                ErrorKind::Unavailable,
                "Redis is overloaded: it would not answer in time",
            ),
        }
    }
}

fn deposed() -> Error {
    let message = "the connection to Redis was given up before the answer came";
    Error::new(ErrorKind::Unavailable, message)
}

/// The error of operations whose supervisor is gone.
pub(crate) fn runtime_is_gone() -> Error {
    let message = "the runtime in which the Redis store was made is gone";
    Error::new(ErrorKind::Unavailable, message)
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
        self.state.borrow().end_lease();
    }
}
