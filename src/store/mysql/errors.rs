//! Errors of the driver become ours: no type of it, no secret and no user id gets out.

use sqlx::mysql::MySqlDatabaseError;

use crate::{Error, ErrorKind};

/// Why work on a connection failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// As it is to be reported; nothing is to be tried again.
    Final(Error),
    Driver(sqlx::Error),
    /// The same after the server was told to commit: it may have done so.
    Unsure(sqlx::Error),
    /// The server is read-only: most likely a replica, which may know less than the server that takes the writes.
    ReadOnly,
}

impl Failure {
    /// Why one of our reads failed: they have no deadline that the server knows.
    pub(super) fn of_read(error: sqlx::Error) -> Self {
        match number(&error) {
            Some(OUT_OF_RANGE) => Self::ReadOnly,
            _ => Self::Driver(error),
        }
    }

    /// Deadlock, and a lock that took too long: the server has undone the statement, and the rest of a transaction is
    /// undone when its connection closes.
    pub(super) fn is_rolled_back(&self) -> bool {
        matches!(self.number(), Some(1205 | 1213))
    }

    /// Whether the connection is of no use any more, so that the same may work on another one.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Driver(sqlx::Error::Io(_)) | Self::Unsure(sqlx::Error::Io(_)) => true,
            // The server shuts down, or has closed a connection that was idle or killed.
            _ => {
                self.is_refusal()
                    || matches!(
                        self.number(),
                        Some(1053 | 1080 | 1152 | 1158..=1161 | 1927 | 3169 | 4031)
                    )
            }
        }
    }

    /// Whether the server certainly did nothing, because it is read-only, or because what it knows to be the deadline
    /// has passed: then the time that this connection knows may be wrong, too.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::ReadOnly)
            || matches!(self.number(), Some(1290 | OUT_OF_RANGE | 1792 | 1836))
    }

    /// Whether a write was refused because its deadline had passed, or because the server is read-only. The next
    /// connection tells: it asks its server for the latter.
    pub(super) fn is_late_or_read_only(&self) -> bool {
        self.number() == Some(OUT_OF_RANGE)
    }

    /// Whether other connections are in doubt, too: the server has gone, or takes no writes any more. Under load, a
    /// late write alone says nothing about them.
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

/// What our statements fail with if the server gets to them after their deadline, or is read-only. See `sql`.
const OUT_OF_RANGE: u16 = 1690;

pub(super) fn no_such_table(error: &sqlx::Error) -> bool {
    number(error) == Some(1146)
}

/// Whether a row with the same key is there already.
pub(super) fn duplicate(error: &sqlx::Error) -> bool {
    number(error) == Some(1062)
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
                    // About the account or the state of the server; others may quote what was to be stored.
                    None if refuses_to_serve(number) => {
                        unavailable(format!("{}: {}", text(), database.message()))
                    }
                    None => {
                        Error::with_source(ErrorKind::Store, "MySQL answered with an error", text())
                    }
                },
            }
        }
        // Of the mechanisms that the account may have, the driver lacks one: RSA for a password without TLS.
        sqlx::Error::Configuration(_) => Error::new(
            ErrorKind::Config,
            "this MySQL account cannot log in without TLS (`caching_sha2_password`, `sha256_password`)",
        ),
        sqlx::Error::Protocol(text) if wants_unknown_login(text) => Error::new(
            ErrorKind::Config,
            "this MySQL account logs in by an authentication plugin that is not supported: \
             use `caching_sha2_password` with TLS, or `mysql_native_password`",
        ),
        // What it met may be data.
        _ => Error::new(
            ErrorKind::Store,
            "MySQL answered with something that makes no sense",
        ),
    }
}

/// The driver has no error of its own for it.
fn wants_unknown_login(text: &str) -> bool {
    [
        "unknown authentication plugin",
        "mysql_cleartext_plugin disabled",
    ]
    .iter()
    .any(|start| text.starts_with(start))
}

/// What somebody has to change about the server, the account or our configuration before it can work.
fn misconfigured(number: u16) -> Option<&'static str> {
    Some(match number {
        1049 => "there is no such database on this MySQL server",
        // On the database, a table, a column; for a statement.
        1044 | 1142 | 1143 | 1227 => {
            "this MySQL account lacks a privilege: it needs SELECT, INSERT, UPDATE and DELETE, and CREATE to migrate"
        }
        1054 => {
            "the tables of the session store lack a column: they are not those that `MySqlStore::migrate()` makes"
        }
        // What is not supported, a syntax, a variable, a function.
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
        "the tables of the session store are missing: call `MySqlStore::migrate()` first",
    )
}

const UNAVAILABLE: &str = "MySQL is unavailable";

/// Whether the server is not there for us at the moment: it starts, stops, is full or read-only, or does not
/// let us in.
fn refuses_to_serve(number: u16) -> bool {
    let refusals = [
        1021, // disk full
        1040, // too many connections
        1041, // out of memory
        1045, // access denied
        1047, // Galera: not a part of the cluster
        1053, // shutdown
        1080, // connection closed
        1114, // table full
        1129, // host blocked
        1130, // host not allowed
        1152, // connection aborted
        1158, 1159, 1160, 1161, // network
        1203, // too many connections of this user
        1205, // lock not granted, again and again
        1213, // deadlock, again and again
        1226, // a limit of the user is reached
        1290, // an option forbids it: read-only
        1317, // interrupted
        1698, // access denied, without a password
        1792, // read-only transaction
        1836, // read-only mode
        1927, // connection killed
        3118, // account locked
        3169, // connection killed
        4031, // connection closed for being idle
        4151, // account locked, in MariaDB
    ];
    refusals.contains(&number)
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
