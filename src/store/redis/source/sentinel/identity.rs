//! Checks that a server is the one that the sentinels monitor.
//!
//! An address may lead to one server from here, and to another one from the host of a sentinel. A server of another
//! service would answer that no session exists. Every run of a server has an id, and sentinels report the id of the run
//! that they saw last, and when they saw it.

use std::time::Duration;

use redis::{RedisResult, aio::MultiplexedConnection};
use tokio::time::Instant;

use super::Sentinels;
use crate::{
    Error, ErrorKind,
    store::redis::wire::{address::Address, run_id},
};

/// The precision of the uptime that servers report: whole seconds.
const PRECISION: Duration = Duration::from_secs(2);

/// A run of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) id: String,
    /// A time at which this run is known to have existed.
    pub(super) since: Instant,
}

impl Run {
    /// Whether the master that a sentinel has `seen` is another server than this one. If this one has been started
    /// later, then it may be the same one, restarted.
    pub(super) fn is_other_than(&self, seen: &Self) -> bool {
        self.id != seen.id && self.since < seen.since
    }

    /// Asks a server; `None` if it does not tell, or not this account.
    async fn of(connection: &mut MultiplexedConnection) -> RedisResult<Option<Self>> {
        let info = redis::cmd("INFO").arg("server").take();
        match info.query_async::<String>(connection).await {
            Ok(info) => Ok(Self::read(&info, Instant::now())),
            Err(error) if error.is_io_error() => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn read(info: &str, now: Instant) -> Option<Self> {
        let field = |name| info.lines().find_map(|line| line.strip_prefix(name));
        let id = run_id(info)?;
        let age = Duration::from_secs(field("uptime_in_seconds:")?.trim().parse().ok()?);
        Some(Self {
            id: id.to_owned(),
            // It was there for `age` at least; if that is too short to tell, it has just been started.
            since: now.checked_sub(age).map_or(now, |start| start + PRECISION),
        })
    }
}

impl Sentinels {
    /// Refuses a server that is not the master that the sentinels watch, although it is where they say. Nothing is
    /// known of a server that does not tell its run (`INFO` may not be allowed) or that no sentinel has seen yet.
    pub(crate) async fn verify(
        &self,
        address: &Address,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Error> {
        let run = Run::of(connection).await;
        let run = run.map_err(|error| self.shared.errors.convert_at(address, &error))?;
        match run {
            Some(run) if self.shared.board().have_seen_another(address, &run) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the server is not the master that the sentinels watch: its run_id is another one, at {address}"
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_another_one_if_it_was_there_when_that_was_seen() {
        let now = Instant::now() + Duration::from_secs(1000);
        let seen = |id: &str, ago| Run {
            id: id.to_owned(),
            since: now - Duration::from_secs(ago),
        };
        let is_other = |uptime: u64, seen: Run| {
            let info = format!("# Server\r\nrun_id:a\r\nuptime_in_seconds:{uptime}\r\n");
            Run::read(&info, now).unwrap().is_other_than(&seen)
        };
        assert!(is_other(100, seen("b", 10)));
        assert!(is_other(4, seen("b", 0)));
        assert!(!is_other(100, seen("a", 10)));
        assert!(!is_other(5, seen("b", 10)), "restarted since");
        assert!(!is_other(10, seen("b", 10)), "restarted at about that time");
        assert!(!is_other(0, seen("b", 0)));
        for untold in ["", "run_id:\r\nuptime_in_seconds:1", "run_id:a\r\n"] {
            assert_eq!(Run::read(untold, now), None);
        }
    }
}
