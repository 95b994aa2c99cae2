//! The metadata of sessions: a JSON object, which also has their scopes.

use std::any::type_name;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Scopes};

/// The maximum size of the metadata of a session, in bytes of JSON.
const MAX_METADATA_LEN: usize = 1024;
/// The entry with the scopes, in their text form.
const SCOPE: &str = "scope";

/// The metadata of a session without its scopes.
///
/// Metadata that is not a JSON object was not written by a manager, and counts as none.
pub(crate) fn entries(metadata: Option<&[u8]>) -> Map<String, Value> {
    let mut object = decode(metadata);
    object.remove(SCOPE);
    object
}

/// The metadata of a session without its scopes, as a type of the application.
pub(crate) fn entries_as<T: DeserializeOwned>(metadata: Option<&[u8]>) -> Result<T, Error> {
    // Without the source, which quotes the value.
    serde_json::from_value(Value::Object(entries(metadata))).map_err(|_| {
        let message = format!("the metadata of the session is not a {}", type_name::<T>());
        Error::new(ErrorKind::Serialize, message)
    })
}

/// The scopes of a session.
pub(crate) fn scopes(metadata: Option<&[u8]>) -> Scopes {
    match decode(metadata).get(SCOPE) {
        Some(Value::String(text)) => Scopes::from_text(text),
        _ => Scopes::default(),
    }
}

/// Both of them, as the store keeps them; empty if there are none.
pub(super) fn encode(entries: &Map<String, Value>, scopes: &Scopes) -> Result<Bytes, Error> {
    if entries.contains_key(SCOPE) {
        let message = "the metadata entry `scope` is for the scopes of the session";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    if entries.is_empty() && scopes.is_empty() {
        return Ok(Bytes::new());
    }
    let text = if scopes.is_empty() {
        serde_json::to_vec(entries)
    } else {
        let mut object = entries.clone();
        object.insert(SCOPE.to_owned(), scopes.as_str().into());
        serde_json::to_vec(&object)
    };
    let text = text.map_err(|source| {
        let message = "the metadata cannot be written as JSON";
        Error::with_source(ErrorKind::InvalidInput, message, source)
    })?;
    if text.len() > MAX_METADATA_LEN {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the metadata has {} bytes of JSON; at most {MAX_METADATA_LEN} are allowed",
                text.len()
            ),
        ));
    }
    Ok(text.into())
}

fn decode(metadata: Option<&[u8]>) -> Map<String, Value> {
    let object = metadata.map(serde_json::from_slice);
    object.and_then(Result::ok).unwrap_or_default()
}
