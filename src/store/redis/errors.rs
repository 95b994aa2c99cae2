use std::sync::Arc;

use redis::{ErrorKind as RedisErrorKind, RedisError, ServerErrorKind};

use crate::{Error, ErrorKind};

/// Turns errors of the client into ours: no type of it, and no secret, gets out.
#[derive(Clone)]
pub(super) struct ErrorText(Arc<[String]>);

impl ErrorText {
    pub(super) fn new(secrets: Vec<String>) -> Self {
        Self(secrets.into())
    }

    pub(super) fn convert(&self, error: &RedisError) -> Error {
        // Old servers quote the arguments of a command that they do not know, such as HELLO … AUTH.
        let mut text = error.to_string();
        for secret in &*self.0 {
            text = text.replace(secret.as_str(), "***");
        }
        if another_connection_may_cure(error) || refuses_for_now(error) {
            Error::with_source(ErrorKind::Unavailable, "Redis is unavailable", text)
        } else {
            Error::with_source(ErrorKind::Store, "Redis answered with an error", text)
        }
    }
}

/// Whether it is the connection, or the role or state of the server behind it, that is at fault.
pub(super) fn another_connection_may_cure(error: &RedisError) -> bool {
    match error.kind() {
        RedisErrorKind::Io | RedisErrorKind::Parse | RedisErrorKind::AuthenticationFailed => true,
        RedisErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly
        ),
        _ => matches!(error.code(), Some("NOAUTH" | "WRONGPASS")),
    }
}

/// Whether the server is fine but will not do the operation at the moment: out of memory, its disk is
/// full, too few replicas, a script runs.
fn refuses_for_now(error: &RedisError) -> bool {
    matches!(
        error.code(),
        Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY")
    )
}
