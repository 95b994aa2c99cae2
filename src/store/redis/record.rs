//! A session as the value of a hash field.
//!
//! | bytes | content |
//! |---|---|
//! | 0..6 | expiry |
//! | 6 | the version of the oldest reader that can interpret the record: 1. Later versions are 2 to 31, and never printable |
//! | 7..13 | creation |
//! | 13..19 | last refresh |
//! | 19 | the parts that follow, in the order of their bits |
//!
//! | bit | part |
//! |---|---|
//! | 1 | last authentication, 6 bytes; without it that is the creation |
//! | 2 | absolute end, 6 bytes |
//! | 4 | metadata: 4 bytes of length, and so many bytes |
//! | 8 | tokens, if the first one was replaced: the current token id (16 bytes), a number, and so many times a replaced token id (16 bytes) and the end of its grace (6 bytes), the latest first |
//!
//! Numbers are unsigned and big-endian; times are milliseconds since the Unix epoch. The first 19 bytes are the same in
//! every version, so that any reader can tell what is dead, and count and order what is not. Parts of unknown bits
//! come last: a reader ignores them, and keeps them when it changes the record.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{
    TokenId,
    store::{ReplacedToken, Rotation, SessionRecord},
};

/// The version of this reader.
const READER: u8 = 1;
/// The last version that there can be.
const LAST_VERSION: u8 = 31;
/// What a record begins with, whatever its version.
const HEADER: usize = 19;
const AUTHENTICATED: u8 = 1;
const ENDS: u8 = 2;
const METADATA: u8 = 4;
const TOKENS: u8 = 8;

/// The first bytes of a record.
pub(super) type Header = [u8; HEADER];

/// Reads a record; `None` if it is not a session. Of a session that only a newer reader can interpret, just the header
/// is read.
pub(super) fn decode(record: &[u8]) -> Option<SessionRecord> {
    let created_at = time(record, 7)?;
    let mut session = SessionRecord {
        created_at,
        refreshed_at: time(record, 13)?,
        authenticated_at: created_at,
        expires_at: time(record, 0)?,
        ends_at: None,
        metadata: None,
        rotation: None,
        is_opaque: (READER + 1..=LAST_VERSION).contains(&record[6]),
    };
    if session.is_opaque {
        return Some(session);
    }
    if record[6] != READER {
        return None;
    }
    let mut at = HEADER;
    let mut take = |len: usize| {
        let start = at;
        at = at.checked_add(len)?;
        record.get(start..at)
    };
    let has = take(1)?[0];
    if has & AUTHENTICATED != 0 {
        session.authenticated_at = time(take(6)?, 0)?;
    }
    if has & ENDS != 0 {
        session.ends_at = Some(time(take(6)?, 0)?);
    }
    if has & METADATA != 0 {
        let len = u32::from_be_bytes(*take(4)?.first_chunk()?);
        let metadata = take(usize::try_from(len).ok()?)?;
        session.metadata = (!metadata.is_empty()).then(|| Bytes::copy_from_slice(metadata));
    }
    if has & TOKENS != 0 {
        let current = token_id(take(16)?)?;
        let replaced = take(1)?[0];
        let replaced = take(22 * usize::from(replaced))?;
        let replaced = replaced.chunks(22).map(|token| {
            let usable_until = time(token, 16)?;
            Some(ReplacedToken::new(token_id(token)?, usable_until))
        });
        session.rotation = Some(Box::new(Rotation {
            current,
            replaced: replaced.collect::<Option<_>>()?,
        }));
    }
    Some(session)
}

/// The header of a record; `None` if it is too short.
pub(super) fn header(record: &[u8]) -> Option<Header> {
    record.first_chunk().copied()
}

/// Whether a record of any version has expired at this time; a value that is not a record counts as expired.
pub(super) fn is_dead(record: &[u8], now: SystemTime) -> bool {
    record.len() < 7 || time(record, 0).is_none_or(|expires_at| expires_at <= now)
}

fn token_id(part: &[u8]) -> Option<TokenId> {
    part.first_chunk().map(TokenId::from_bytes)
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

    /// A record that was created at 1, last refreshed at 2 and expires at 260.
    fn record(compatible_from: u8, tail: &[u8]) -> Vec<u8> {
        let mut record = vec![0, 0, 0, 0, 1, 4, compatible_from];
        record.extend([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2]);
        record.extend(tail);
        record
    }

    fn plain() -> SessionRecord {
        SessionRecord {
            created_at: at(1),
            refreshed_at: at(2),
            authenticated_at: at(1),
            expires_at: at(260),
            ends_at: None,
            metadata: None,
            rotation: None,
            is_opaque: false,
        }
    }

    /// Every part, each alone and all together.
    fn samples() -> [(Vec<u8>, SessionRecord); 6] {
        let authenticated = SessionRecord {
            authenticated_at: at(3),
            ..plain()
        };
        let ends = SessionRecord {
            ends_at: Some(at(0xFFFF_FFFF_FFFF)),
            ..plain()
        };
        let metadata = SessionRecord {
            metadata: Some(Bytes::from_static(b"{}")),
            ..plain()
        };
        let replaced = ReplacedToken::new(TokenId::from_bytes(&[8; 16]), at(4));
        let rotation = SessionRecord {
            rotation: Some(Box::new(Rotation {
                current: TokenId::from_bytes(&[9; 16]),
                replaced: vec![replaced],
            })),
            ..plain()
        };
        let tokens = [&[9; 16][..], &[1], &[8; 16], &[0, 0, 0, 0, 0, 4]].concat();
        let parts = [
            vec![0, 0, 0, 0, 0, 3],
            vec![255; 6],
            b"\0\0\0\x02{}".to_vec(),
            tokens,
        ];
        let all = SessionRecord {
            authenticated_at: authenticated.authenticated_at,
            ends_at: ends.ends_at,
            metadata: metadata.metadata.clone(),
            rotation: rotation.rotation.clone(),
            ..plain()
        };
        let with = |bit: u8, part: &[u8]| record(1, &[&[bit], part].concat());
        [
            (with(0, b""), plain()),
            (with(1, &parts[0]), authenticated),
            (with(2, &parts[1]), ends),
            (with(4, &parts[2]), metadata),
            (with(8, &parts[3]), rotation),
            (with(15, &parts.concat()), all),
        ]
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        for (record, session) in samples() {
            assert_eq!(decode(&record), Some(session));
        }
    }

    #[test]
    fn what_only_newer_readers_know_is_ignored() {
        for (mut record, session) in samples() {
            record[19] |= 0xF0;
            record.extend(b"from the future");
            assert_eq!(decode(&record), Some(session));
        }
    }

    #[test]
    fn a_record_that_only_a_newer_reader_can_interpret_is_opaque() {
        for compatible_from in [2, 31] {
            for tail in [&b""[..], &[15], b"from the future"] {
                let opaque = SessionRecord {
                    is_opaque: true,
                    ..plain()
                };
                assert_eq!(decode(&record(compatible_from, tail)), Some(opaque));
            }
        }
    }

    #[test]
    fn what_is_cut_short_is_no_session() {
        for (record, _) in samples() {
            for len in 0..record.len() {
                assert_eq!(decode(&record[..len]), None, "{len} of {record:?}");
            }
        }
        let too_long = record(1, b"\x04\xFF\xFF\xFF\xFF{}");
        let other_versions = [0, 32, 255].map(|version| record(version, &[0; 9]));
        for bad in other_versions.into_iter().chain([too_long]) {
            assert_eq!(decode(&bad), None);
        }
    }

    #[test]
    fn any_version_tells_when_it_expires() {
        assert!(is_dead(b"", at(0)) && is_dead(&[255; 6], at(0)));
        assert!(is_dead(&record(9, b""), at(260)) && !is_dead(&record(9, b""), at(259)));
    }
}
