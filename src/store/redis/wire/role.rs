//! The role of a server.

use std::collections::HashMap;

use redis::{Cmd, Value};

/// The role that a server claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A server that takes writes.
    Primary,
    Replica,
    /// The server does not tell.
    Unknown,
}

impl Role {
    /// The command that asks for it.
    pub(crate) fn question() -> Cmd {
        redis::cmd("HELLO").arg(3).take()
    }

    /// Reads the reply to `HELLO`. Some proxies leave the role out, or do not know the command.
    pub(crate) fn of(hello: Value) -> Self {
        let hello = hello
            .extract_error()
            .ok()
            .and_then(|hello| redis::from_redis_value::<HashMap<String, Value>>(hello).ok());
        let role = hello.and_then(|mut hello| hello.remove("role"));
        let role = role.and_then(|role| redis::from_redis_value::<String>(role).ok());
        match role.as_deref() {
            None => Self::Unknown,
            Some("replica" | "slave") => Self::Replica,
            // There are servers that replicate and take writes, and say so in words of their own.
            Some(_) => Self::Primary,
        }
    }
}
