//! Operations on the supervised connection.

use std::{fmt, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, ErrorKind as RedisErrorKind, FromRedisValue, Pipeline, RedisError,
    ServerErrorKind,
};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{
    errors::{ErrorText, another_connection_may_cure},
    script::ScriptCall,
    supervisor::{Lane, Live, Reports, State, Supervisor},
    topology::Topology,
};
use crate::{Error, ErrorKind};

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
    pub(super) fn start(
        topology: Topology,
        config: AsyncConnectionConfig,
        connect_timeout: Duration,
        deadline: Duration,
        secrets: Vec<String>,
    ) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let reports = Reports::new();
        let errors = ErrorText::new(secrets);
        let supervisor = Supervisor {
            topology,
            config,
            connect_timeout,
            state: sender,
            reports: reports.clone(),
            errors: errors.clone(),
        };
        let supervisor = tokio::spawn(supervisor.run()).abort_handle();
        Self(Arc::new(Inner {
            state,
            reports,
            deadline,
            errors,
            supervisor,
        }))
    }

    /// Waits for the outcome of the first attempt to connect.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        self.live_after(0).await.map(drop)
    }

    /// Sends commands in one round trip.
    ///
    /// Sent again, once, if the connection drops before they are answered: so they must be safe to
    /// repeat.
    pub(super) async fn query<T: FromRedisValue>(
        &self,
        lane: Lane,
        commands: &Pipeline,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + self.0.deadline;
        let outcome = self.query_until(deadline, lane, commands).await;
        outcome.map_err(|failure| self.error(failure))
    }

    /// Calls a script, which must be safe to repeat; teaches it to the server if need be.
    pub(super) async fn script<T: FromRedisValue>(&self, call: &ScriptCall) -> Result<T, Error> {
        let deadline = Instant::now() + self.0.deadline;
        let outcome = match self.query_until(deadline, Lane::Main, &call.by_sha()).await {
            Err(Failure::Redis(error))
                if error.kind() == RedisErrorKind::Server(ServerErrorKind::NoScript) =>
            {
                self.query_until(deadline, Lane::Main, &call.by_source())
                    .await
            }
            outcome => outcome,
        };
        let [reply] = outcome.map_err(|failure| self.error(failure))?;
        Ok(reply)
    }

    async fn query_until<T: FromRedisValue>(
        &self,
        deadline: Instant,
        lane: Lane,
        commands: &Pipeline,
    ) -> Result<T, Failure> {
        let mut live = self.live_until(deadline, 0).await?;
        let mut retries = 1;
        loop {
            let mut connection = live.connection(lane);
            match timeout_at(deadline, commands.query_async(&mut connection)).await {
                Ok(Ok(reply)) => {
                    live.answered();
                    return Ok(reply);
                }
                Ok(Err(error)) => {
                    if another_connection_may_cure(&error) {
                        self.0.reports.broken(live.generation);
                    }
                    if !error.is_io_error() || retries == 0 {
                        return Err(Failure::Redis(error));
                    }
                    retries -= 1;
                    live = self.live_until(deadline, live.generation).await?;
                }
                Err(_) => {
                    if live.timed_out() {
                        self.0.reports.broken(live.generation);
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
