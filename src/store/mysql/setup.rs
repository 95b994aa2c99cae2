//! The setup and the checks of a new connection.

use sqlx::{MySqlConnection, Row, SqlStr, mysql::MySqlRow};

use super::{clock::Clock, errors::Failure};
use crate::{Error, ErrorKind};

/// Prepares a connection for our statements, and checks that its server supports them.
pub(super) async fn run(
    connection: &mut MySqlConnection,
    setup: &SqlStr,
) -> Result<Clock, Failure> {
    let rows = sqlx::raw_sql(setup.clone()).fetch_all(connection).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    check_server(row)?;
    Ok(Clock::new(row.try_get("now")?))
}

/// Checks that the server accepts writes and has a supported version.
fn check_server(row: &MySqlRow) -> Result<(), Failure> {
    if row.try_get::<i64, _>("read_only")? != 0 {
        return Err(Failure::ReadOnly);
    }
    let unfit = |message: String| Err(Error::new(ErrorKind::Config, message).into());
    let version: String = row.try_get("version")?;
    if is_too_old(&version) {
        return unfit(format!(
            "this server has version {version:.40}: the session store needs MySQL 8.0 or MariaDB 10.6, or later"
        ));
    }
    if row.try_get::<i64, _>("sysdate_is_now")? != 0 {
        let message = "this server was started with `--sysdate-is-now`, which the session store does not work with";
        return unfit(message.to_owned());
    }
    Ok(())
}

/// Whether the server's version is too old; `false` for an unknown version format.
fn is_too_old(version: &str) -> bool {
    let needed = if version.contains("MariaDB") {
        (10, 6)
    } else {
        (8, 0)
    };
    let mut numbers = version
        .split(|char: char| !char.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < needed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_told_by_their_versions() {
        for (version, too_old) in [
            ("10.11.19-MariaDB-0+deb12u1", false),
            ("10.6.0-MariaDB", false),
            ("10.5.29-MariaDB-log", true),
            ("11.4.2-MariaDB", false),
            ("8.0.36", false),
            ("8.0.mysql_aurora.3.04.0", false),
            ("9.1.0-commercial", false),
            ("5.7.44-log", true),
            ("5.7.mysql_aurora.2.11.1", true),
            ("something else", false),
            ("", false),
        ] {
            assert_eq!(is_too_old(version), too_old, "{version}");
        }
    }
}
