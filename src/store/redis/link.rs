//! Operations on the supervised connection.

use std::{fmt, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, ErrorKind as RedisErrorKind, FromRedisValue, Pipeline, RedisError,
    ServerErrorKind,
};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{
    errors::{ErrorText, another_connection_may_cure},
    script::ScriptCall,
    supervisor::{Live, Reports, State, Supervisor},
    topology::Topology,
};
use crate::{Error, ErrorKind};

/// Where and how to connect.
#[derive(Clone)]
pub(super) struct LinkConfig {
    /// Where the supervisor runs, whoever happens to need the link first.
    pub(super) runtime: Handle,
    pub(super) topology: Arc<Topology>,
    pub(super) connection: AsyncConnectionConfig,
    pub(super) connect_timeout: Duration,
    pub(super) deadline: Duration,
    pub(super) errors: ErrorText,
}

/// What to do with an operation whose connection drops before it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDrop {
    /// Send it again, once: doing it twice, and late, does no harm.
    Retry,
    /// Give up: the first one may still be on its way, and arrive after its effect was undone.
    Fail,
}

/// A handle; the connection closes when the last one is gone.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    state: watch::Receiver<State>,
    reports: Reports,
    deadline: Duration,
    errors: ErrorText,
    supervisor: AbortHandle,
}

impl Link {
    /// Starts to connect, in a task of its own.
    pub(super) fn start(config: &LinkConfig) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let reports = Reports::new();
        let supervisor = Supervisor {
            topology: Arc::clone(&config.topology),
            config: config.connection.clone(),
            connect_timeout: config.connect_timeout,
            state: sender,
            reports: reports.clone(),
            errors: config.errors.clone(),
        };
        let supervisor = config.runtime.spawn(supervisor.run()).abort_handle();
        Self(Arc::new(Inner {
            state,
            reports,
            deadline: config.deadline,
            errors: config.errors.clone(),
            supervisor,
        }))
    }

    /// Waits for the outcome of the first attempt to connect.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        self.live_after(0).await.map(drop)
    }

    /// Sends commands in one round trip; again, if the connection drops.
    pub(super) async fn query<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Error> {
        let deadline = Instant::now() + self.0.deadline;
        let outcome = self.query_until(deadline, commands, OnDrop::Retry).await;
        outcome.map_err(|failure| self.error(failure))
    }

    /// Calls a script; teaches it to the server if need be.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        call: &ScriptCall,
        on_drop: OnDrop,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + self.0.deadline;
        let outcome = match self.query_until(deadline, &call.by_sha(), on_drop).await {
            Err(Failure::Redis(error))
                if error.kind() == RedisErrorKind::Server(ServerErrorKind::NoScript) =>
            {
                let commands = call.by_source();
                self.query_until(deadline, &commands, on_drop).await
            }
            outcome => outcome,
        };
        let [reply] = outcome.map_err(|failure| self.error(failure))?;
        Ok(reply)
    }

    async fn query_until<T: FromRedisValue>(
        &self,
        deadline: Instant,
        commands: &Pipeline,
        on_drop: OnDrop,
    ) -> Result<T, Failure> {
        let mut live = self.live_until(deadline, 0).await?;
        let mut retry = on_drop == OnDrop::Retry;
        loop {
            let sent = Instant::now();
            let mut connection = live.connection.clone();
            match timeout_at(deadline, commands.query_async(&mut connection)).await {
                Ok(Ok(reply)) => {
                    live.silence.ends();
                    return Ok(reply);
                }
                Ok(Err(error)) => {
                    if another_connection_may_cure(&error) {
                        self.0.reports.suspect(live.generation);
                    }
                    if !error.is_io_error() || !retry {
                        return Err(Failure::Redis(error));
                    }
                    retry = false;
                    live = self.live_until(deadline, live.generation).await?;
                }
                Err(_) => {
                    if live.silence.goes_on(sent.elapsed(), self.0.deadline) {
                        self.0.reports.suspect(live.generation);
                    }
                    return Err(Failure::Deadline);
                }
            }
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
        if let Some(verdict) = self.0.state.borrow().verdict(broken) {
            return verdict;
        }
        let mut state = self.0.state.clone();
        let state = state.wait_for(|state| state.verdict(broken).is_some());
        let verdict = state.await.ok().and_then(|state| state.verdict(broken));
        verdict.unwrap_or_else(|| {
            let message = "the runtime in which the Redis store was made is gone";
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Redis(error) => self.0.errors.convert(&error),
            Failure::Down(error) => error,
            Failure::Deadline => Error::new(
                ErrorKind::Timeout,
                format!("no answer from Redis within {:?}", self.0.deadline),
            ),
        }
    }
}

enum Failure {
    Redis(RedisError),
    Down(Error),
    Deadline,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.0.state.borrow() {
            State::Connecting => "connecting",
            State::Up(_) => "up",
            State::Down(_) => "down",
        };
        f.debug_struct("Link")
            .field("state", &state)
            .field("deadline", &self.0.deadline)
            .finish_non_exhaustive()
    }
}
