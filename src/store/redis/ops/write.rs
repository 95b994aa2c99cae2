//! Writes on a supervised connection.
//!
//! A write is a script that does nothing after a deadline by the server's clock. It never takes effect after its caller
//! was told that it failed, as long as the server's clock goes on and is not set back. If the connection drops before
//! the answer came, the write is sent again on the next one, but not before the deadline of the first copy: a late copy
//! could undo what was done after the second. A login is not sent again: the first copy may have been done, and undone
//! by a logout since then.

use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::{Instant, sleep_until};

use crate::store::redis::{
    conn::{
        link::{Answer, Failure, Link, Lost, OnDrop},
        live::Live,
    },
    wire::{
        Time,
        clock::micros,
        script::{By, ScriptCall},
    },
};

/// The longest time that a copy of a write has to reach its server.
const MAX_LIFETIME: Duration = Duration::from_secs(1);

/// A call of a script that changes something.
#[derive(Clone, Copy)]
pub(crate) struct Write<'a> {
    call: &'a ScriptCall,
    by: By,
    on_drop: OnDrop,
    asking: bool,
}

/// A request to the server that holds a key.
#[derive(Clone, Copy)]
pub(crate) enum Request<'a> {
    /// Commands that change nothing: doing them twice, or late, does no harm.
    Read(&'a Pipeline),
    Write(Write<'a>),
}

impl<'a> Write<'a> {
    pub(crate) fn new(call: &'a ScriptCall, by: By, on_drop: OnDrop) -> Self {
        Self {
            call,
            by,
            on_drop,
            asking: false,
        }
    }

    /// The same for a node of a cluster to which another one redirected with `ASK`.
    pub(crate) fn asking(self) -> Self {
        Self {
            asking: true,
            ..self
        }
    }

    fn commands(&self, deadline: u64) -> Pipeline {
        let mut commands = Pipeline::with_capacity(2);
        if self.asking {
            commands.cmd("ASKING");
        }
        commands.add_command(self.call.command(self.by, deadline));
        commands
    }
}

impl Link {
    /// Sends commands, or a write.
    pub(crate) async fn request(
        &self,
        deadline: Instant,
        request: Request<'_>,
    ) -> Result<Answer, Failure> {
        match request {
            Request::Read(commands) => self.send(deadline, commands, OnDrop::Retry).await,
            Request::Write(write) => self.write(deadline, write).await,
        }
    }

    /// Sends a write in one round trip, or in two if the server's clock is not known well enough.
    pub(crate) async fn write(
        &self,
        deadline: Instant,
        write: Write<'_>,
    ) -> Result<Answer, Failure> {
        let mut live = self.live_until(deadline, 0).await?;
        let (mut repeated, mut retries) = (false, 1);
        loop {
            let lost = match self.clock_of(&live, deadline).await {
                Err(lost) => lost,
                Ok(()) => {
                    let expires = deadline.min(Instant::now() + self.lifetime());
                    let commands = write.commands(live.connected.clock.at(expires));
                    match self
                        .send_once(&live, deadline, &commands, Duration::ZERO)
                        .await
                    {
                        Ok(values) => {
                            return Ok(Answer {
                                values,
                                live,
                                repeated,
                            });
                        }
                        Err(lost) => {
                            sleep_until(expires).await;
                            repeated = true;
                            if write.on_drop == OnDrop::Fail {
                                retries = 0;
                            }
                            lost
                        }
                    }
                }
            };
            match lost {
                Lost::Connection(_) if retries > 0 => retries -= 1,
                Lost::Connection(failure) | Lost::Answer(failure) => return Err(failure),
            }
            live = self.live_until(deadline, live.generation()).await?;
        }
    }

    /// Asks the server for the time, unless it has told it lately.
    async fn clock_of(&self, live: &Live, deadline: Instant) -> Result<(), Lost> {
        if live.connected.clock.is_known() {
            return Ok(());
        }
        let mut commands = Pipeline::with_capacity(1);
        commands.cmd("TIME");
        let values = self
            .send_once(live, deadline, &commands, Duration::ZERO)
            .await?;
        let time = Value::Array(values).extract_error();
        let time = time.and_then(|time| Ok(redis::from_redis_value::<(Time,)>(time)?));
        let (time,) = time.map_err(|error| Lost::Answer(Failure::Redis(error)))?;
        live.note_time(micros(time));
        Ok(())
    }

    /// How long a copy of a write may be executed. Some of the time of an operation is left to repeat it.
    fn lifetime(&self) -> Duration {
        MAX_LIFETIME.min(self.config.deadline * 3 / 4)
    }
}
