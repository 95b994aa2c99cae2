//! Conversions of rows, times and ids.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use sqlx::{Row, mysql::MySqlRow};

use crate::{
    TokenId,
    store::{Checked, SessionRecord, SessionVersion},
};

/// The time in the first column.
pub(super) fn now(row: &MySqlRow) -> Result<SystemTime, sqlx::Error> {
    time(row.try_get(0)?).ok_or_else(|| sqlx::Error::Decode("a time before 1970".into()))
}

/// The session in the columns after the time; `None` if there is none, or if it cannot be decoded.
pub(super) fn session(row: &MySqlRow) -> Result<Option<(TokenId, SessionRecord)>, sqlx::Error> {
    let Some(id) = row.try_get::<Option<&[u8]>, _>(1)? else {
        return Ok(None);
    };
    let times = [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?].map(time);
    let ends_at = row.try_get::<Option<i64>, _>(5)?.map(time);
    let metadata: Option<Vec<u8>> = row.try_get(6)?;
    let (Some(id), [Some(created_at), Some(refreshed_at), Some(expires_at)]) =
        (id.try_into().ok().map(token_id), times)
    else {
        return Ok(None);
    };
    let session = SessionRecord {
        created_at,
        refreshed_at,
        expires_at,
        ends_at: match ends_at {
            Some(None) => return Ok(None),
            ends_at => ends_at.flatten(),
        },
        metadata: metadata.map(Bytes::from),
    };
    Ok(Some((id, session)))
}

/// A row of `Sql::check`: the time, the session, the cached user.
pub(super) fn checked(row: &MySqlRow) -> Result<Option<Checked>, sqlx::Error> {
    let Some((_, session)) = session(row)? else {
        return Ok(None);
    };
    let user: Option<Vec<u8>> = row.try_get(7)?;
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

/// The 16 bytes of a token id, most significant first.
pub(super) fn bytes(token_id: &TokenId) -> [u8; 16] {
    let mut bytes = [0; 18];
    let len = BASE64URL.decode_slice(token_id.as_str(), &mut bytes);
    debug_assert_eq!(len, Ok(16));
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[..16]);
    id
}

fn token_id(bytes: [u8; 16]) -> TokenId {
    let text = BASE64URL.encode(bytes);
    text.parse()
        .expect("16 bytes in base64url are the text of a token id")
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

fn time(millis: i64) -> Option<SystemTime> {
    let millis = u64::try_from(millis).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_ids_come_back() {
        for bytes_of in [[0; 16], [255; 16], *b"0123456789abcdef"] {
            assert_eq!(bytes(&token_id(bytes_of)), bytes_of);
        }
    }

    #[test]
    fn times_come_back() {
        for number in [0, 1, 4_102_444_800_123] {
            assert_eq!(millis(time(number).unwrap()), number);
        }
        assert_eq!(time(-1), None);
    }
}
