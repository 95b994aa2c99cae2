//! Errors of the driver become ours: no type of it, no secret and no user id gets out.

use sqlx::mysql::MySqlDatabaseError;

use crate::{Error, ErrorKind};

/// Why work on a connection failed.
pub(super) enum Failure {
    /// As it is to be reported; nothing is to be tried again.
    Final(Error),
    Driver(sqlx::Error),
    /// The same after the server was told to commit: it may have done so.
    Unsure(sqlx::Error),
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
        }
    }
}

/// Deadlock, and a lock that took too long: the server has undone the statement, and the rest of a transaction is
/// undone when its connection closes.
pub(super) fn rolled_back(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1205 | 1213))
}

/// Whether the connection is of no use any more, so that the same may work on another one.
pub(super) fn connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // The server shuts down, or has closed a connection that was idle or killed.
        _ => matches!(
            number(error),
            // And it is read-only, so that it is not the one to ask any more.
            Some(1053 | 1080 | 1152 | 1158..=1161 | 1290 | 1792 | 1836 | 1927 | 3169 | 4031)
        ),
    }
}

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
            match number {
                // About the account or the state of the server; others may quote what was to be stored.
                _ if refuses_to_serve(number) => {
                    unavailable(format!("error {number} ({state}): {}", database.message()))
                }
                1146 => not_migrated(),
                _ => {
                    let text = format!("error {number} ({state})");
                    Error::with_source(ErrorKind::Store, "MySQL answered with an error", text)
                }
            }
        }
        // Of the mechanisms that the account may have, the driver lacks one: RSA for a password without TLS.
        sqlx::Error::Configuration(_) => Error::new(
            ErrorKind::Config,
            "this MySQL account cannot log in without TLS (`caching_sha2_password`, `sha256_password`)",
        ),
        // What it met may be data.
        _ => Error::new(
            ErrorKind::Store,
            "MySQL answered with something that makes no sense",
        ),
    }
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
        1044, // access to the database denied
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
        3159, // TLS required
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
        assert!(connection_lost(&lost) && !rolled_back(&lost));
        assert_eq!(convert(&lost).kind(), ErrorKind::Unavailable);
        let nonsense = sqlx::Error::Protocol("hunter2".to_owned());
        assert!(!connection_lost(&nonsense));
        let error = convert(&nonsense);
        assert_eq!(error.kind(), ErrorKind::Store);
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
