//! Sessions as values of Redis hash fields.
//!
//! - A record that is accepted is written back to the same bytes: no two records are the same session.
//! - The record that is accepted expires when every program that reads only the expiry says so.
//! - What is too short or of an unknown version is not a session.

#![no_main]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use tower_bearer_session::fuzzing::redis::{decode, header, is_dead};

fn millis(time: SystemTime) -> [u8; 6] {
    let millis = time
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970")
        .as_millis();
    let [_, _, bytes @ ..] = u64::try_from(millis).expect("48 bits").to_be_bytes();
    bytes
}

fuzz_target!(|record: &[u8]| {
    let known = match record.get(6) {
        Some(2) => record.len() >= 19,
        Some(3) => record.len() >= 25,
        _ => false,
    };
    let session = decode(record.to_vec());
    assert_eq!(session.is_some(), known);
    let Some(session) = session else {
        assert!(record.len() >= 7 || is_dead(record, UNIX_EPOCH));
        return;
    };
    assert_eq!(header(&session), record[..19]);
    let version = if session.ends_at.is_some() { 3 } else { 2 };
    let [expires, created, refreshed] =
        [session.expires_at, session.created_at, session.refreshed_at].map(millis);
    let mut written = [&expires[..], &[version], &created, &refreshed].concat();
    written.extend(session.ends_at.iter().flat_map(|end| millis(*end)));
    written.extend(session.metadata.iter().flatten());
    assert_eq!(written, record);
    assert!(session.metadata.is_none_or(|metadata| !metadata.is_empty()));
    // A store finds a session while the time is before its expiry.
    let tick = Duration::from_millis(1);
    assert!(is_dead(record, session.expires_at));
    assert!(session.expires_at == UNIX_EPOCH || !is_dead(record, session.expires_at - tick));
});
