//! The metadata of sessions: a JSON object, in which the manager also keeps their scopes and their last use.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Scopes};

/// The maximum size of the metadata of a session with its scopes, in bytes of JSON.
const MAX_METADATA_LEN: usize = 1024;
/// The entry with the scopes, in their text form.
const SCOPE: &str = "scope";
/// The entry with the time of the last request, in seconds since the Unix epoch.
const SEEN_AT: &str = "seen_at";

/// The metadata of a session without what the manager keeps there.
///
/// Metadata that is not a JSON object was not written by a manager, and counts as none.
pub(crate) fn entries(metadata: Option<&[u8]>) -> Map<String, Value> {
    let mut object = decode(metadata);
    object.remove(SCOPE);
    object.remove(SEEN_AT);
    object
}

/// The metadata of a session without what the manager keeps there, as a type of the application.
pub(crate) fn entries_as<T: DeserializeOwned>(metadata: Option<&[u8]>) -> Result<T, Error> {
    let entries = Value::Object(entries(metadata));
    serde_json::from_value(entries)
        .map_err(|_| Error::wrong_type::<T>("the metadata of the session is"))
}

/// The scopes of a session.
pub(crate) fn scopes(metadata: Option<&[u8]>) -> Scopes {
    match decode(metadata).get(SCOPE) {
        Some(Value::String(text)) => Scopes::from_text(text),
        _ => Scopes::default(),
    }
}

/// When a request with the session was last noted.
pub(crate) fn seen_at(metadata: Option<&[u8]>) -> Option<SystemTime> {
    let seconds = decode(metadata).get(SEEN_AT)?.as_u64()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The metadata of a new session, as the store keeps them; empty if there are none.
pub(super) fn encode(entries: &Map<String, Value>, scopes: &Scopes) -> Result<Bytes, Error> {
    encode_with(entries, scopes, None)
}

/// The metadata of a session, with other entries and scopes.
pub(super) fn replace(
    current: &[u8],
    entries: &Map<String, Value>,
    scopes: &Scopes,
) -> Result<Bytes, Error> {
    let seen_at = decode(Some(current)).remove(SEEN_AT);
    encode_with(entries, scopes, seen_at)
}

/// The metadata of a session, of which a request came at this time.
pub(super) fn with_seen_at(current: Option<&[u8]>, now: SystemTime) -> Bytes {
    let mut object = decode(current);
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    object.insert(SEEN_AT.to_owned(), since.as_secs().into());
    Value::Object(object).to_string().into()
}

fn encode_with(
    entries: &Map<String, Value>,
    scopes: &Scopes,
    seen_at: Option<Value>,
) -> Result<Bytes, Error> {
    if let Some(reserved) = [SCOPE, SEEN_AT]
        .into_iter()
        .find(|&name| entries.contains_key(name))
    {
        let message = format!("the metadata entry `{reserved}` is not for applications");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let mut object = entries.clone();
    if !scopes.is_empty() {
        object.insert(SCOPE.to_owned(), scopes.as_str().into());
    }
    let text = Value::from(object.clone()).to_string();
    if decode(Some(text.as_bytes())) != object {
        let message = "the metadata cannot be read back from JSON: they are nested too deeply";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let len = text.len();
    if len > MAX_METADATA_LEN {
        let message =
            format!("the metadata has {len} bytes of JSON; at most {MAX_METADATA_LEN} are allowed");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    object.extend(seen_at.map(|seen_at| (SEEN_AT.to_owned(), seen_at)));
    match object.is_empty() {
        true => Ok(Bytes::new()),
        false => Ok(Value::Object(object).to_string().into()),
    }
}

fn decode(metadata: Option<&[u8]>) -> Map<String, Value> {
    let object = metadata.map(serde_json::from_slice);
    object.and_then(Result::ok).unwrap_or_default()
}
