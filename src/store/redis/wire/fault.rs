//! Classification of errors of the client and the server.

use redis::{ErrorKind as RedisErrorKind, RedisError, ServerError, Value};

/// A class of errors, by what to do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection broke, the login failed, or the server is loading its data: another connection may do better.
    Connection,
    /// Only a replica answers so: another connection may lead to the primary.
    Replica,
    /// A node of a cluster says that the cluster is down: as one does that was cut off from the others, and perhaps
    /// replaced.
    ClusterDown,
    /// Another node of the cluster has the slot.
    Moved,
    /// Another node of the cluster may have the key, while the slot moves.
    Ask,
    /// Two nodes have the keys, while the slot moves.
    TryAgain,
    /// A primary takes no writes for now, because its disk is full or replicas are missing.
    NoWrites,
    /// The server is fine but refuses the operation for now: out of memory, say, or a script runs.
    NotNow,
    /// The server does not know the script.
    UnknownScript,
    /// The account lacks the right.
    NoPermission,
    /// Anything else, which will not pass by itself.
    Other,
}

impl Fault {
    /// Classifies an error of the client, which may be one that the server answered with.
    pub(crate) fn of(error: &RedisError) -> Self {
        match error.kind() {
            RedisErrorKind::Io | RedisErrorKind::Parse | RedisErrorKind::AuthenticationFailed => {
                return Self::Connection;
            }
            _ => {}
        }
        // An error in a pipeline has no code of its own.
        let errors = error.clone().into_server_errors().unwrap_or_default();
        match errors.first() {
            Some((_, error)) => Self::of_server(error),
            None if is_too_many_clients(&error.to_string()) => Self::NotNow,
            None => Self::Other,
        }
    }

    /// Classifies a reply; `None` if it is not an error.
    pub(crate) fn of_reply(reply: &Value) -> Option<Self> {
        match reply {
            Value::ServerError(error) => Some(Self::of_server(error)),
            _ => None,
        }
    }

    /// Classifies an error that the server answered with, by its code.
    pub(crate) fn of_server(error: &ServerError) -> Self {
        match code(error) {
            "LOADING" | "NOAUTH" | "WRONGPASS" => Self::Connection,
            "MASTERDOWN" | "READONLY" => Self::Replica,
            "CLUSTERDOWN" => Self::ClusterDown,
            "MOVED" => Self::Moved,
            "ASK" => Self::Ask,
            "TRYAGAIN" => Self::TryAgain,
            "MISCONF" | "NOREPLICAS" => Self::NoWrites,
            "BUSY" | "DENIED" | "OOM" => Self::NotNow,
            "NOSCRIPT" => Self::UnknownScript,
            "NOPERM" => Self::NoPermission,
            _ if error.details().is_some_and(is_too_many_clients) => Self::NotNow,
            _ => Self::Other,
        }
    }

    /// Whether the connection, or the role or state of the server behind it, is at fault.
    pub(crate) fn another_connection_may_help(self) -> bool {
        matches!(self, Self::Connection | Self::Replica)
    }

    /// Whether a node of a cluster is not the one to ask.
    pub(crate) fn is_wrong_node(self) -> bool {
        matches!(self, Self::Moved | Self::ClusterDown | Self::Replica)
    }

    /// Whether a node of a cluster has not executed a command because another one may have the key.
    pub(crate) fn is_elsewhere(self) -> bool {
        matches!(self, Self::Moved | Self::Ask | Self::TryAgain)
    }

    /// Whether a node of a cluster answers a read so because it does not hold the key.
    pub(crate) fn is_of_another_node(self) -> bool {
        matches!(self, Self::Moved | Self::Ask | Self::ClusterDown)
    }

    /// Whether the same operation may succeed later.
    pub(crate) fn is_temporary(self) -> bool {
        !matches!(self, Self::UnknownScript | Self::NoPermission | Self::Other)
    }
}

/// The code of an error, such as `LOADING`.
fn code(error: &ServerError) -> &str {
    // Redis 6 wraps the error of a command in a script: "ERR Error running script …: -OOM …".
    let inner = error
        .details()
        .and_then(|details| details.split(": -").nth(1));
    let inner = inner.and_then(|inner| inner.split(' ').next());
    inner.unwrap_or(error.code())
}

fn is_too_many_clients(text: &str) -> bool {
    text.contains("max number of clients reached")
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn fault(reply: &str) -> Fault {
        let value = parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        let of_reply = Fault::of_reply(&value);
        let of_error = Fault::of(&value.extract_error().unwrap_err());
        assert_eq!(of_reply, Some(of_error), "{reply}");
        of_error
    }

    #[test]
    fn a_code_is_found_in_every_version_of_the_server() {
        for reply in [
            "READONLY You can't write against a read only replica.",
            "READONLY You can't write against a read only replica. script: 41ac, on @user_script:9.",
            "ERR Error running script (call to f_41ac): @user_script:9: @user_script: 9: -READONLY You can't write \
             against a read only replica. ",
        ] {
            assert_eq!(fault(reply), Fault::Replica, "{reply}");
        }
        for (reply, expected) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Fault::NotNow,
            ),
            ("ERR max number of clients reached", Fault::NotNow),
            ("MISCONF Redis is configured to save", Fault::NoWrites),
            (
                "LOADING Redis is loading the dataset in memory",
                Fault::Connection,
            ),
            (
                "WRONGPASS invalid username-password pair",
                Fault::Connection,
            ),
            ("CLUSTERDOWN Hash slot not served", Fault::ClusterDown),
            ("MOVED 1 127.0.0.1:7000", Fault::Moved),
            ("ASK 1 127.0.0.1:7000", Fault::Ask),
            ("TRYAGAIN Multiple keys request", Fault::TryAgain),
            ("NOPERM this user has no permissions", Fault::NoPermission),
            ("NOSCRIPT No matching script.", Fault::UnknownScript),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                Fault::Other,
            ),
        ] {
            assert_eq!(fault(reply), expected, "{reply}");
        }
    }

    #[test]
    fn a_broken_connection_is_a_fault_of_the_connection() {
        let error = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(Fault::of(&error), Fault::Connection);
    }
}
