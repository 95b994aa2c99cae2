//! Commands, replies and errors of one server, and connections to it.

use crate::{Error, ErrorKind};

pub(crate) mod address;
pub(crate) mod clock;
pub(crate) mod dial;
pub(crate) mod errors;
pub(crate) mod fault;
pub(crate) mod role;
pub(crate) mod script;
#[cfg(feature = "redis-tls")]
pub(crate) mod tls;

/// A string, or nil.
pub(crate) type Reply = Option<Vec<u8>>;
/// The reply to `TIME`: seconds and microseconds since the Unix epoch.
pub(crate) type Time = (u64, u64);

/// The error for a reply that no version of the server gives.
pub(crate) fn unexpected_reply(operation: &str) -> Error {
    Error::new(
        ErrorKind::Store,
        format!("Redis gave an unexpected reply to `{operation}`"),
    )
}
