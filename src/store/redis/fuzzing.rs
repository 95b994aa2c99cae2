//! Private parsers, for the fuzz targets.

use std::time::SystemTime;

pub use super::config::fuzzing::RedisUrl;
use super::{record, wire::address::Address};
use crate::store::SessionRecord;

/// Reads the record of a session.
pub fn decode(record: &[u8]) -> Option<SessionRecord> {
    record::decode(record)
}

/// Whether a record of any version has expired.
pub fn is_dead(record: &[u8], now: SystemTime) -> bool {
    record::is_dead(record, now)
}

/// Reads `host[:port]`, and returns the host, the port, and the address as it is written in errors.
pub fn address(text: &str, default_port: u16) -> Option<(String, u16, String)> {
    let address = Address::parse(text, default_port)?;
    let shown = address.to_string();
    Some((address.host, address.port, shown))
}
