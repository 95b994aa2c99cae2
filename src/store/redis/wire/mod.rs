//! Commands, replies and errors of one server, and connections to it.

use crate::{Error, ErrorKind};

pub(crate) mod address;
pub(crate) mod clock;
pub(crate) mod dial;
pub(crate) mod errors;
pub(crate) mod fault;
mod given;
pub(crate) mod login;
pub(crate) mod resolve;
pub(crate) mod role;
pub(crate) mod script;
mod tcp;
#[cfg_attr(not(feature = "redis-tls"), path = "no_tls.rs")]
pub(crate) mod tls;

/// A string, or nil.
pub(crate) type Reply = Option<Vec<u8>>;
/// The reply to `TIME`: seconds and microseconds since the Unix epoch.
pub(crate) type Time = (u64, u64);

/// The run of a server, in its reply to `INFO server`: every start of a server is another run.
pub(crate) fn run_id(info: &str) -> Option<&str> {
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    run_id.filter(|run_id| !run_id.is_empty())
}

/// The error for a reply that no version of the server gives.
pub(crate) fn unexpected_reply(operation: &str) -> Error {
    Error::new(
        ErrorKind::Store,
        format!("Redis gave an unexpected reply to `{operation}`"),
    )
}
