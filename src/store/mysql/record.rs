//! Conversions of rows, times and ids.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sqlx::{Row, mysql::MySqlRow};

use super::{
    errors::Failure,
    sql::{AFTER, READER},
};
use crate::{
    Error, TokenId,
    store::{Checked, ReplacedToken, Rotation, SessionRecord, SessionVersion},
};

/// The time in the first column.
pub(super) fn now(row: &MySqlRow) -> Result<SystemTime, sqlx::Error> {
    time(row.try_get(0)?).ok_or_else(out_of_range)
}

/// The session in the columns after the time; `None` if there is none, or if it cannot be decoded. Of a session that
/// only a newer version can interpret, just creation, last refresh and expiry are read.
pub(super) fn session(row: &MySqlRow) -> Result<Option<(TokenId, SessionRecord)>, sqlx::Error> {
    let Some(id) = row.try_get::<Option<&[u8]>, _>(1)? else {
        return Ok(None);
    };
    let times = [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?].map(time);
    let (Some(id), [Some(created_at), Some(refreshed_at), Some(expires_at)]) =
        (token_id(id), times)
    else {
        return Ok(None);
    };
    let mut session = SessionRecord {
        created_at,
        refreshed_at,
        authenticated_at: created_at,
        expires_at,
        ends_at: None,
        metadata: None,
        rotation: None,
        is_opaque: row.try_get::<u8, _>(10)? > READER,
    };
    if session.is_opaque {
        return Ok(Some((id, session)));
    }
    let metadata: Option<Vec<u8>> = row.try_get(6)?;
    session.metadata = metadata.map(Bytes::from);
    let [ends_at, authenticated_at] = [row.try_get(5)?, row.try_get(7)?]
        .map(|column: Option<i64>| column.map(|millis| time(millis).ok_or(())).transpose());
    let rotation = rotation(row.try_get(8)?, row.try_get(9)?);
    let (Ok(ends_at), Ok(authenticated_at), Ok(rotation)) = (ends_at, authenticated_at, rotation)
    else {
        return Ok(None);
    };
    session.ends_at = ends_at;
    session.authenticated_at = authenticated_at.unwrap_or(created_at);
    session.rotation = rotation;
    Ok(Some((id, session)))
}

/// Reads the columns of tokens; an error if they cannot be decoded.
fn rotation(current: Option<&[u8]>, replaced: Option<&[u8]>) -> Result<Option<Box<Rotation>>, ()> {
    let Some(current) = current else {
        return Ok(None);
    };
    let current = token_id(current).ok_or(())?;
    let replaced = replaced.unwrap_or_default().chunks(22).map(|token| {
        let (id, end) = token.split_at_checked(16)?;
        let end: &[u8; 6] = end.try_into().ok()?;
        let millis = end
            .iter()
            .fold(0, |millis, &byte| (millis << 8) | i64::from(byte));
        Some(ReplacedToken::new(token_id(id)?, time(millis)?))
    });
    let replaced = replaced.collect::<Option<_>>().ok_or(())?;
    Ok(Some(Box::new(Rotation { current, replaced })))
}

/// The session, or an error if only a newer version can interpret it.
pub(super) fn readable(session: SessionRecord) -> Result<SessionRecord, Failure> {
    if session.is_opaque {
        return Err(Error::newer_session().into());
    }
    Ok(session)
}

/// A row of `Sql::check`: the time, the session, the cached user.
pub(super) fn checked(row: &MySqlRow) -> Result<Option<Checked>, Failure> {
    let Some((_, session)) = session(row)? else {
        return Ok(None);
    };
    let (session, user) = (
        readable(session)?,
        row.try_get::<Option<Vec<u8>>, _>(AFTER)?,
    );
    Ok(Some(Checked::new(
        now(row)?,
        session,
        user.map(Bytes::from),
    )))
}

/// Whether a refresh of this version may have made the session what it is.
pub(super) fn may_result_from(
    session: &SessionRecord,
    version: SessionVersion,
    ttl: Duration,
) -> bool {
    let refreshed_at = session.refreshed_at;
    let expires_at = millis(refreshed_at).saturating_add(span(ttl));
    let expires_at = session
        .ends_at
        .map_or(expires_at, |end| expires_at.min(millis(end)));
    refreshed_at >= version.refreshed_at && millis(session.expires_at) == expires_at
}

/// The bytes of the token id in this column; `None` if there is none.
pub(super) fn id(row: &MySqlRow, column: usize) -> Result<Option<[u8; 16]>, sqlx::Error> {
    let Some(id) = row.try_get::<Option<&[u8]>, _>(column)? else {
        return Ok(None);
    };
    let id = id.try_into();
    id.map(Some)
        .map_err(|_| sqlx::Error::Decode("a token id of another length".into()))
}

/// The bytes in the column after the time.
pub(super) fn value(row: &MySqlRow) -> Result<Option<Bytes>, sqlx::Error> {
    let value: Option<Vec<u8>> = row.try_get(1)?;
    Ok(value.map(Bytes::from))
}

fn token_id(bytes: &[u8]) -> Option<TokenId> {
    bytes.try_into().ok().map(TokenId::from_bytes)
}

/// The error for a time that cannot be.
pub(super) fn out_of_range() -> sqlx::Error {
    sqlx::Error::Decode("a time out of range".into())
}

/// A time in milliseconds since the Unix epoch, as in the columns.
pub(super) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    span(since.unwrap_or_default())
}

/// A duration in whole milliseconds, saturating.
pub(super) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn time(millis: i64) -> Option<SystemTime> {
    let millis = u64::try_from(millis).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        for number in [0, 1, 4_102_444_800_123] {
            assert_eq!(millis(time(number).unwrap()), number);
        }
        assert_eq!(time(-1), None);
    }
}
