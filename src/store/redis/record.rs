//! A session as the value of a hash field.
//!
//! | bytes | content |
//! |---|---|
//! | 0..6 | expiry |
//! | 6 | version of the record: 2, or 3 for one with an absolute end |
//! | 7..13 | creation |
//! | 13..19 | last refresh |
//! | 19..25 | absolute end; in version 3 only |
//! | 19.. or 25.. | metadata, nothing for none |
//!
//! Times are unsigned big-endian numbers of milliseconds since the Unix epoch. In all versions the expiry
//! comes first, so that any program can tell what is dead.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::store::SessionRecord;

const PLAIN: u8 = 2;
const WITH_END: u8 = 3;

/// Reads a record; `None` if it is not one of these versions.
pub(super) fn decode(record: Vec<u8>) -> Option<SessionRecord> {
    let (ends_at, header_len) = match *record.get(6)? {
        PLAIN => (None, 19),
        WITH_END => (Some(time(&record, 19)?), 25),
        _ => return None,
    };
    Some(SessionRecord {
        created_at: time(&record, 7)?,
        refreshed_at: time(&record, 13)?,
        expires_at: time(&record, 0)?,
        ends_at,
        metadata: (record.len() > header_len).then(|| Bytes::from(record).slice(header_len..)),
    })
}

/// What a record begins with, whatever its version: its first 19 bytes.
pub(super) fn header(session: &SessionRecord) -> Vec<u8> {
    let version = if session.ends_at.is_some() {
        WITH_END
    } else {
        PLAIN
    };
    let time = |time| millis(time).to_be_bytes()[2..].to_vec();
    let [expires, created, refreshed] =
        [session.expires_at, session.created_at, session.refreshed_at].map(time);
    [expires, vec![version], created, refreshed].concat()
}

/// Whether a record of any version has expired at this time; a value that is not a record counts as expired.
pub(super) fn is_dead(record: &[u8], now: SystemTime) -> bool {
    record.len() < 7 || time(record, 0).is_none_or(|expires_at| expires_at <= now)
}

/// A time as records have it.
pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn time(record: &[u8], at: usize) -> Option<SystemTime> {
    let bytes: &[u8; 6] = record.get(at..)?.first_chunk()?;
    let millis = bytes
        .iter()
        .fold(0, |millis, byte| (millis << 8) | u64::from(*byte));
    Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn record(version: u8, tail: &[u8]) -> Vec<u8> {
        let mut record = vec![0, 0, 0, 0, 1, 4, version];
        record.extend([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2]);
        record.extend(tail);
        record
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let expected = SessionRecord {
            expires_at: at(260),
            created_at: at(1),
            refreshed_at: at(2),
            ends_at: None,
            metadata: None,
        };
        assert_eq!(decode(record(2, b"")), Some(expected.clone()));
        let with_metadata = SessionRecord {
            metadata: Some(Bytes::from_static(b"{}")),
            ..expected
        };
        assert_eq!(decode(record(2, b"{}")), Some(with_metadata.clone()));
        let full = SessionRecord {
            ends_at: Some(at(0xFFFF_FFFF_FFFF)),
            ..with_metadata.clone()
        };
        let tail = [255, 255, 255, 255, 255, 255, b'{', b'}'];
        assert_eq!(decode(record(3, &tail)), Some(full.clone()));
        assert_eq!(header(&full), record(3, b""));
        assert_eq!(header(&with_metadata), record(2, b""));
    }

    #[test]
    fn what_is_not_a_record_is_none() {
        assert!(is_dead(b"", at(0)) && is_dead(&[255; 6], at(0)));
        assert!(is_dead(&record(9, b""), at(260)) && !is_dead(&record(9, b""), at(259)));
        let mut short = record(2, b"");
        short.pop();
        let other_versions = [record(1, &[0; 9]), record(4, &[0; 9])];
        for bad in [vec![], vec![0; 6], vec![2; 7], short, record(3, &[0; 5])] {
            assert_eq!(decode(bad), None);
        }
        assert_eq!(other_versions.map(decode), [None, None]);
    }
}
