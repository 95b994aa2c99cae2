//! A session as the value of a hash field.
//!
//! | bytes | content |
//! |---|---|
//! | 0..6 | expiry |
//! | 6 | version of the record: 1 |
//! | 7..13 | creation |
//! | 13..19 | last refresh |
//! | 19..25 | absolute end, 0 for none |
//! | 25.. | metadata, nothing for none |
//!
//! Times are unsigned big-endian numbers of milliseconds since the Unix epoch. In all versions the expiry
//! comes first, so that any program can tell what is dead.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::store::SessionRecord;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 25;

/// Reads a record; `None` if it is not one of this version.
pub(super) fn decode(record: Vec<u8>) -> Option<SessionRecord> {
    let header: &[u8; HEADER_LEN] = record.first_chunk()?;
    if header[6] != VERSION {
        return None;
    }
    let session = SessionRecord {
        created_at: time(header, 7),
        refreshed_at: time(header, 13),
        expires_at: time(header, 0),
        ends_at: Some(time(header, 19)).filter(|end| *end != SystemTime::UNIX_EPOCH),
        metadata: None,
    };
    let metadata = (record.len() > HEADER_LEN).then(|| Bytes::from(record).slice(HEADER_LEN..));
    Some(SessionRecord {
        metadata,
        ..session
    })
}

fn time(header: &[u8; HEADER_LEN], at: usize) -> SystemTime {
    let millis = header[at..at + 6]
        .iter()
        .fold(0, |millis, byte| (millis << 8) | u64::from(*byte));
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn record(tail: &[u8]) -> Vec<u8> {
        let mut record = vec![0, 0, 0, 0, 1, 4, VERSION];
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
        assert_eq!(decode(record(&[0; 6])), Some(expected.clone()));
        let full = SessionRecord {
            ends_at: Some(at(0xFFFF_FFFF_FFFF)),
            metadata: Some(Bytes::from_static(b"{}")),
            ..expected
        };
        assert_eq!(
            decode(record(&[255, 255, 255, 255, 255, 255, b'{', b'}'])),
            Some(full)
        );
    }

    #[test]
    fn what_is_not_a_record_is_none() {
        let mut other_version = record(&[0; 6]);
        other_version[6] = 2;
        for bad in [vec![], vec![0; 24], record(&[0; 5]), other_version] {
            assert_eq!(decode(bad), None);
        }
    }
}
