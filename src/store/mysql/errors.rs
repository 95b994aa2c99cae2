//! Converts driver errors into crate errors, without driver types, secrets and user ids.
//!
//! The server's own messages quote user names and the values of statements. No error contains such a message: it has
//! the number of the error, and text of this module.

use sqlx::mysql::MySqlDatabaseError;

use crate::{Error, ErrorKind};

/// Why work on a connection failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error to report without a retry.
    Final(Error),
    Driver(sqlx::Error),
    /// A driver error during a commit, which may have taken effect.
    Unsure(sqlx::Error),
    /// The server is read-only: most likely a replica, which may lag behind the primary.
    ReadOnly,
}

impl Failure {
    /// The failure of a read. Reads carry no deadline, so "out of range" means that the server is read-only.
    pub(super) fn of_read(error: sqlx::Error) -> Self {
        match number(&error) {
            Some(OUT_OF_RANGE) => Self::ReadOnly,
            _ => Self::Driver(error),
        }
    }

    /// Whether the server rolled back the statement because of a deadlock or a lock timeout. The rest of the
    /// transaction is rolled back when its connection closes.
    pub(super) fn is_rolled_back(&self) -> bool {
        matches!(self.number(), Some(1205 | 1213))
    }

    /// Whether the connection is unusable, so that a retry on another one may work.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Driver(sqlx::Error::Io(_)) | Self::Unsure(sqlx::Error::Io(_)) => true,
            // The server is shutting down, or closed an idle or killed connection.
            _ => {
                self.is_refusal()
                    || matches!(
                        self.number(),
                        Some(1053 | 1080 | 1152 | 1158..=1161 | 1927 | 3169 | 4031)
                    )
            }
        }
    }

    /// Whether the server certainly changed nothing, because it is read-only or the deadline of the write has passed.
    /// In the latter case the clock of this connection may also be wrong.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::ReadOnly)
            || matches!(self.number(), Some(1290 | OUT_OF_RANGE | 1792 | 1836))
    }

    /// Whether a write was refused because its deadline had passed or because the server is read-only. A new connection
    /// tells the two apart, because it checks whether its server is read-only.
    pub(super) fn is_late_or_read_only(&self) -> bool {
        self.number() == Some(OUT_OF_RANGE)
    }

    /// Whether other connections may be unusable as well: the server is down, or no longer accepts writes. A late write
    /// alone is no sign of that, because it may be due to load.
    pub(super) fn casts_doubt_on_others(&self) -> bool {
        self.is_lost() && !self.is_late_or_read_only()
    }

    fn number(&self) -> Option<u16> {
        match self {
            Self::Driver(error) | Self::Unsure(error) => number(error),
            Self::Final(_) | Self::ReadOnly => None,
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Final(error) => error,
            Failure::Driver(error) | Failure::Unsure(error) => convert(&error),
            Failure::ReadOnly => Error::with_source(
                ErrorKind::Unavailable,
                UNAVAILABLE,
                "the server is read-only: it may be a replica, which does not know of every logout",
            ),
        }
    }
}

/// The error number of statements that the server executes after their deadline, or while it is read-only. See `sql`.
const OUT_OF_RANGE: u16 = 1690;

pub(super) fn no_such_table(error: &sqlx::Error) -> bool {
    number(error) == Some(1146)
}

/// Whether a row with the same key already exists.
pub(super) fn duplicate(error: &sqlx::Error) -> bool {
    number(error) == Some(1062)
}

pub(super) fn overloaded() -> Error {
    let message = "MySQL is overloaded: it would not answer in time";
    Error::new(ErrorKind::Unavailable, message)
}

pub(super) fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "MySQL did not answer in time")
}

fn convert(error: &sqlx::Error) -> Error {
    let unavailable = |text| Error::with_source(ErrorKind::Unavailable, UNAVAILABLE, text);
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => unavailable(error.to_string()),
        sqlx::Error::Database(database) => {
            let error = database.try_downcast_ref::<MySqlDatabaseError>();
            let (number, state) = error.map_or((0, ""), |error| {
                (error.number(), error.code().unwrap_or_default())
            });
            let text = || format!("error {number} ({state})");
            match number {
                OUT_OF_RANGE => Error::new(
                    ErrorKind::Timeout,
                    "MySQL got to it after the deadline or is read-only, and did nothing",
                ),
                1146 => not_migrated(),
                _ => match misconfigured(number) {
                    Some(message) => Error::with_source(ErrorKind::Config, message, text()),
                    None => match refuses_to_serve(number) {
                        Some(reason) => unavailable(format!("{}: {reason}", text())),
                        None => Error::with_source(
                            ErrorKind::Store,
                            "MySQL answered with an error",
                            text(),
                        ),
                    },
                },
            }
        }
        // The driver lacks one login mechanism: RSA encryption of the password without TLS.
        sqlx::Error::Configuration(_) => Error::new(
            ErrorKind::Config,
            "this MySQL account cannot log in without TLS (`caching_sha2_password`, `sha256_password`)",
        ),
        sqlx::Error::Protocol(text) if wants_unknown_login(text) => Error::new(
            ErrorKind::Config,
            "this MySQL account logs in by an authentication plugin that is not supported: \
             use `caching_sha2_password` with TLS, or `mysql_native_password`",
        ),
        // Without the source, which may quote stored data.
        _ => Error::new(ErrorKind::Store, "MySQL gave an unexpected reply"),
    }
}

/// Whether the account needs an unsupported authentication plugin, for which the driver has no error of its own.
fn wants_unknown_login(text: &str) -> bool {
    [
        "unknown authentication plugin",
        "mysql_cleartext_plugin disabled",
    ]
    .iter()
    .any(|start| text.starts_with(start))
}

/// The error text for a server, account or configuration that an operator has to change before the store can work: no
/// retry can help until then.
fn misconfigured(number: u16) -> Option<&'static str> {
    Some(match number {
        1049 => "there is no such database on this MySQL server",
        // Denied for a database, a table, a column, a statement.
        1044 | 1142 | 1143 | 1227 => {
            "this MySQL account lacks a privilege: it needs SELECT, INSERT, UPDATE and DELETE, and CREATE to migrate"
        }
        1054 => {
            "the tables of the session store lack a column: they are not those that `MySqlStore::migrate()` makes"
        }
        // An unknown syntax, variable, feature, function.
        1064 | 1193 | 1235 | 1305 => {
            "this server does not understand the session store: it needs MySQL 8.0 or MariaDB 10.6, or later"
        }
        1665 => "this MySQL server logs statements: set `binlog_format` to `ROW` or `MIXED`",
        3159 => "this MySQL server demands TLS: set `ssl-mode=VERIFY_IDENTITY` in the URL",
        _ => return None,
    })
}

pub(super) fn not_migrated() -> Error {
    Error::new(
        ErrorKind::Config,
        "a table of the session store is missing: call `MySqlStore::migrate()`",
    )
}

const UNAVAILABLE: &str = "MySQL is unavailable";

/// Why the server is currently unavailable: it starts, stops, is full or read-only, or denies the login.
fn refuses_to_serve(number: u16) -> Option<&'static str> {
    Some(match number {
        1021 => "the disk is full",
        1040 => "the server has too many connections",
        1041 => "the server is out of memory",
        1045 | 1698 => "access denied: the user name or the password is wrong",
        1047 => "this server is not a part of its Galera cluster",
        1053 => "the server shuts down",
        1080 | 1152 | 1927 | 3169 => "the server closed the connection",
        1114 => "the table is full",
        1129 => "the server has blocked this host after too many failed connections",
        1130 => "the server does not accept connections from this host",
        1158..=1161 => "the network failed",
        1203 => "this account has too many connections",
        1205 => "a lock was not granted, again and again",
        1213 => "a deadlock, again and again",
        1226 => "this account has reached one of its resource limits",
        1290 => "an option of the server, such as `read_only`, forbids it",
        1317 => "the statement was interrupted",
        1792 => "the transaction is read-only",
        1836 => "the server is in read-only mode",
        3118 | 4151 => "this account is locked",
        4031 => "the server closed the connection, because it was idle",
        _ => return None,
    })
}

fn number(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    let error = database.try_downcast_ref::<MySqlDatabaseError>();
    error.map(MySqlDatabaseError::number)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_lost_connection_is_an_outage_and_nonsense_is_not() {
        let lost = sqlx::Error::Io(io::ErrorKind::ConnectionReset.into());
        let lost = Failure::from(lost);
        assert!(lost.is_lost() && !lost.is_rolled_back() && !lost.is_refusal());
        assert_eq!(Error::from(lost).kind(), ErrorKind::Unavailable);
        let protocol_error = Failure::from(sqlx::Error::Protocol("hunter2".to_owned()));
        assert!(!protocol_error.is_lost());
        let error = Error::from(protocol_error);
        assert_eq!(error.kind(), ErrorKind::Store);
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
