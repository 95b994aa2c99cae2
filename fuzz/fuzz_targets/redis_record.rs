//! Sessions as values of Redis hash fields.
//!
//! - A record that is accepted tells exactly what it contains, whatever follows its known parts.
//! - The record that is accepted expires when every program that reads only the expiry says so.
//! - Of a record that only a newer version may judge, nothing but the header is read.
//! - What is cut off, or has no version, is not a session.

#![no_main]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use tower_bearer_session::fuzzing::redis::{decode, is_dead};

fn millis(time: SystemTime) -> [u8; 6] {
    let millis = time
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970")
        .as_millis();
    let [_, _, bytes @ ..] = u64::try_from(millis).expect("48 bits").to_be_bytes();
    bytes
}

/// The parts that a record of this version has; `None` if it is cut off.
fn parts(record: &[u8]) -> Option<(u8, Vec<&[u8]>)> {
    let has = *record.get(19)?;
    let mut rest = &record[20..];
    let mut parts = Vec::new();
    let mut take = |len: usize| {
        let (part, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(part)
    };
    for bit in 0..4 {
        if has & (1 << bit) == 0 {
            continue;
        }
        match bit {
            0 | 1 => parts.push(take(6)?),
            2 => {
                let len = u32::from_be_bytes(take(4)?.try_into().expect("4 bytes"));
                parts.push(take(usize::try_from(len).expect("32 bits"))?);
            }
            _ => {
                parts.push(take(16)?);
                let count = take(1)?[0];
                parts.push(take(22 * usize::from(count))?);
            }
        }
    }
    Some((has, parts))
}

fuzz_target!(|record: &[u8]| {
    let session = decode(record);
    let version = record.get(6).filter(|_| record.len() >= 19);
    let Some(session) = session else {
        let is_known = match version {
            Some(1) => parts(record).is_some(),
            Some(2..=31) => true,
            _ => false,
        };
        assert!(!is_known);
        assert!(record.len() >= 7 || is_dead(record, UNIX_EPOCH));
        return;
    };
    let [expires, created, refreshed, authenticated] = [
        session.expires_at,
        session.created_at,
        session.refreshed_at,
        session.authenticated_at,
    ]
    .map(millis);
    assert_eq!(expires, record[..6]);
    assert_eq!([created, refreshed].concat(), record[7..19]);
    // A store finds a session while the time is before its expiry.
    let tick = Duration::from_millis(1);
    assert!(is_dead(record, session.expires_at));
    assert!(session.expires_at == UNIX_EPOCH || !is_dead(record, session.expires_at - tick));
    assert_eq!(session.is_opaque, version != Some(&1));
    if session.is_opaque {
        assert!(matches!(version, Some(2..=31)));
        let nothing = (session.ends_at, session.metadata, session.rotation);
        assert_eq!((authenticated, nothing), (created, (None, None, None)));
        return;
    }
    let (has, parts) = parts(record).expect("a complete record");
    let mut parts = parts.into_iter();
    let mut part = |bit: u8| (has & bit != 0).then(|| parts.next().expect("a part"));
    assert_eq!(part(1).unwrap_or(&created), authenticated);
    assert_eq!(
        part(2).map(<[u8]>::to_vec),
        session.ends_at.map(|end| millis(end).to_vec())
    );
    let metadata = part(4).filter(|metadata| !metadata.is_empty());
    assert_eq!(metadata, session.metadata.as_deref());
    let current = part(8);
    assert_eq!(current.is_some(), session.rotation.is_some());
    if let Some(rotation) = session.rotation {
        assert_eq!(current, Some(&rotation.current.to_bytes()[..]));
        let replaced = rotation.replaced.iter();
        let replaced = replaced.flat_map(|token| {
            [&token.token_id.to_bytes()[..], &millis(token.usable_until)].concat()
        });
        assert_eq!(part(8), Some(&replaced.collect::<Vec<_>>()[..]));
    }
});
