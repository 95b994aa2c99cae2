use std::sync::Arc;

use redis::{ErrorKind as RedisErrorKind, RedisError, ServerError};

use super::dial::Address;
use crate::{Error, ErrorKind};

/// Turns errors of the client into ours: no type of it, and no secret, gets out.
#[derive(Clone)]
pub(super) struct ErrorText {
    secrets: Arc<[String]>,
}

impl ErrorText {
    pub(super) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
        Self {
            secrets: secrets.collect(),
        }
    }

    /// An error of the server at this address.
    pub(super) fn convert_at(&self, address: &Address, error: &RedisError) -> Error {
        let error = self.convert(error);
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let message = format!("{error}, at {address}");
        Error::with_source(error.kind(), message, source.unwrap_or_default())
    }

    /// One error for several that have the same effect.
    pub(super) fn all(kind: ErrorKind, message: &'static str, errors: &[Error]) -> Error {
        let errors: Vec<String> = errors.iter().map(Self::chain).collect();
        Error::with_source(kind, message, errors.join("; "))
    }

    /// The error and its sources, in one line.
    fn chain(error: &Error) -> String {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }

    pub(super) fn convert(&self, error: &RedisError) -> Error {
        // Old servers quote the arguments of a command that they do not know, such as HELLO … AUTH, and only
        // the beginning of a long one.
        let text = error.to_string();
        let quoted = text.find("with args beginning with");
        let mut text = text[..quoted.unwrap_or(text.len())].to_owned();
        for secret in &*self.secrets {
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
        _ => has_code(
            error,
            &["LOADING", "MASTERDOWN", "READONLY", "NOAUTH", "WRONGPASS"],
        ),
    }
}

/// Whether only a replica answers so.
pub(super) fn is_of_a_replica(error: &RedisError) -> bool {
    has_code(error, &["MASTERDOWN", "READONLY"])
}

/// Whether a node of a cluster says that the cluster is down: as one does that was cut off from the others, and perhaps
/// replaced.
pub(super) fn is_cluster_down(error: &RedisError) -> bool {
    has_code(error, &["CLUSTERDOWN"])
}

/// Whether the server is fine but will not do the operation at the moment: out of memory, its disk is
/// full, too few replicas, a script runs, the cluster has lost slots.
fn refuses_for_now(error: &RedisError) -> bool {
    let codes = [
        "DENIED",
        "OOM",
        "MISCONF",
        "NOREPLICAS",
        "BUSY",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "MOVED",
        "ASK",
    ];
    has_code(error, &codes) || error.to_string().contains("max number of clients reached")
}

/// Whether a server answered with an error of one of these codes.
pub(super) fn has_code(error: &RedisError, codes: &[&str]) -> bool {
    codes.contains(&code_of(error).as_str())
}

/// The code of an error that a server answered with, such as `LOADING`; empty for others.
pub(super) fn code_of(error: &RedisError) -> String {
    // An error in a pipeline has no code of its own.
    let errors = error.clone().into_server_errors().unwrap_or_default();
    let code = errors
        .first()
        .map(|(_, error)| server_code(error).to_owned());
    code.unwrap_or_default()
}

/// The same of a reply.
pub(super) fn server_code(error: &ServerError) -> &str {
    // Redis 6 wraps the error of a command in a script: "ERR Error running script …: -OOM …".
    let inner = error
        .details()
        .and_then(|details| details.split(": -").nth(1));
    let inner = inner.and_then(|inner| inner.split(' ').next());
    inner.unwrap_or(error.code())
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn error(reply: &str) -> RedisError {
        let value = parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn a_code_is_found_in_every_version_of_the_server() {
        for reply in [
            "READONLY You can't write against a read only replica.",
            "READONLY You can't write against a read only replica. script: 41ac, on @user_script:9.",
            "ERR Error running script (call to f_41ac): @user_script:9: @user_script: 9: -READONLY You can't write \
             against a read only replica. ",
        ] {
            assert!(another_connection_may_cure(&error(reply)), "{reply}");
        }
        let reply = "OOM command not allowed when used memory > 'maxmemory'.";
        assert!(refuses_for_now(&error(reply)));
        assert!(!another_connection_may_cure(&error(reply)));
        let reply = "WRONGTYPE Operation against a key holding the wrong kind of value";
        let converted = ErrorText::new([]).convert(&error(reply));
        assert_eq!(converted.kind(), ErrorKind::Store);
    }

    #[test]
    fn a_quoted_password_is_blotted_out() {
        let text = ErrorText::new([String::new(), "hunter2".to_owned()]);
        for reply in [
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `app`, `hunter2`",
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `app`, `hunte",
            "ERR unknown subcommand 'hunter2'",
        ] {
            let converted = format!("{:?}", text.convert(&error(reply)));
            assert!(!converted.contains("hunte"), "{converted}");
            assert!(converted.contains("unknown"), "{converted}");
        }
    }
}
