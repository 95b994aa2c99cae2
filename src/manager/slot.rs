//! The encoding of cached users.
//!
//! | first byte | meaning |
//! |---|---|
//! | `{`, also after white space | a user: the JSON `{"id":…,"detail":…,"v":"<nonce>"}` |
//! | `-` | there is no such user |
//! | anything else | a cache miss |
//!
//! No value is ever written twice, because each ends in a nonce. Before a load, the slot always has a value: a
//! [`marker`] is written into an empty one. The loaded user replaces that value by compare-and-set. If the value has
//! changed since the load began, through an invalidation, a newer load or an expiry, the loaded user is not cached.

use std::{borrow::Cow, str, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, ErrorKind};

/// The maximum duration of a load, in all programs that share the cache.
pub(super) const MAX_LOAD_TIME: Duration = Duration::from_secs(30);
/// The ttl of a marker: longer than any load in flight.
pub(super) const MARKER_TTL: Duration = Duration::from_secs(60);

pub(super) enum Slot<D> {
    User(D),
    NoSuchUser,
    Vacant,
}

impl<D> Slot<D> {
    pub(super) fn map<T>(self, f: impl FnOnce(D) -> T) -> Slot<T> {
        match self {
            Self::User(detail) => Slot::User(f(detail)),
            Self::NoSuchUser => Slot::NoSuchUser,
            Self::Vacant => Slot::Vacant,
        }
    }
}

#[derive(Serialize)]
struct CachedRef<'a, D> {
    id: &'a str,
    detail: &'a D,
    v: &'a str,
}

#[derive(Deserialize)]
struct Cached<'a, D> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    detail: D,
}

impl<D: DeserializeOwned> Slot<D> {
    /// Decodes a cached value; a value that is invalid or belongs to another user is vacant.
    pub(super) fn decode(user_id: &str, value: Option<&[u8]>) -> Self {
        match value {
            Some([b'-', ..]) => Self::NoSuchUser,
            // Serde would also read a struct from an array.
            Some(value) if value.trim_ascii_start().starts_with(b"{") => {
                Self::decode_user(user_id, value).map_or(Self::Vacant, Self::User)
            }
            Some(_) | None => Self::Vacant,
        }
    }

    fn decode_user(user_id: &str, value: &[u8]) -> Option<D> {
        // Validating UTF-8 once is faster than once for each string in the JSON.
        let text = str::from_utf8(value).ok()?;
        let cached: Cached<'_, D> = serde_json::from_str(text).ok()?;
        (cached.id == user_id).then_some(cached.detail)
    }
}

/// Encodes a user's detail, or `None` for a user that does not exist.
///
/// A value that does not decode, or is longer than `max_len`, is an error: every request would load its user again.
pub(super) fn encode<D: Serialize + DeserializeOwned>(
    id: &str,
    detail: Option<&D>,
    max_len: usize,
) -> Result<Vec<u8>, Error> {
    let v = &nonce()?;
    let Some(detail) = detail else {
        return Ok(format!("-{v}").into_bytes());
    };
    let value = serde_json::to_vec(&CachedRef { id, detail, v }).map_err(|source| {
        let message = "the user's detail cannot be written as JSON";
        Error::with_source(ErrorKind::Serialize, message, source)
    })?;
    let len = value.len();
    if len > max_len {
        let message = format!(
            "the cached user would have {len} bytes; at most {max_len} are allowed (`max_user_size`)"
        );
        return Err(Error::new(ErrorKind::Serialize, message));
    }
    match serde_json::from_slice::<Cached<'_, D>>(&value) {
        Ok(_) => Ok(value),
        Err(error) => {
            let (reason, column) = (reason(&error), error.column());
            let message = format!(
                "the user's detail cannot be read from the JSON that it was written as: {reason} at byte {column}"
            );
            Err(Error::new(ErrorKind::Serialize, message))
        }
    }
}

/// The reason of a serde error, without the user data that its message may quote.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.strip_suffix(&format!(
        " at line {} column {}",
        error.line(),
        error.column()
    ));
    let text = text.unwrap_or_default();
    if text.starts_with("missing field `") {
        return text.to_owned();
    }
    let kinds = [
        "null",
        "boolean",
        "integer",
        "floating point",
        "string",
        "sequence",
        "map",
    ];
    let kind = text.strip_prefix("invalid type: ").and_then(|unexpected| {
        let mut kinds = kinds.into_iter();
        kinds.find(|kind| unexpected.starts_with(kind))
    });
    match kind {
        Some(kind) => format!("invalid type: {kind}"),
        None => "its type does not accept a value".to_owned(),
    }
}

/// A unique value that decodes as a cache miss.
pub(super) fn marker() -> Result<Vec<u8>, Error> {
    Ok(format!("!{}", nonce()?).into_bytes())
}

fn nonce() -> Result<String, Error> {
    match getrandom::u64() {
        Ok(nonce) => Ok(format!("{nonce:016x}")),
        Err(source) => Err(Error::random(source)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decode(value: &[u8]) -> Option<Value> {
        match Slot::decode("al", Some(value)) {
            Slot::User(detail) => Some(detail),
            Slot::NoSuchUser | Slot::Vacant => None,
        }
    }

    /// Other services and languages read the format as well.
    #[test]
    fn the_format_is_the_documented_one() {
        let value = encode("al", Some(&json!({"name": "Al"})), 1000).unwrap();
        let text = std::str::from_utf8(&value).unwrap();
        let nonce = text.strip_prefix(r#"{"id":"al","detail":{"name":"Al"},"v":""#);
        assert_eq!(nonce.unwrap().len(), 16 + r#""}"#.len());
        assert_eq!(decode(&value), Some(json!({"name": "Al"})));
        assert_eq!(decode(br#"{"id":"al","detail":1}"#), Some(json!(1)));
        let spaced = b" \t\r\n{ \"id\": \"al\", \"detail\": 1 } ";
        assert_eq!(decode(spaced), Some(json!(1)));
    }

    /// Compare-and-set relies on unique values.
    #[test]
    fn no_value_is_written_twice() {
        let user = || encode("al", Some(&1), 1000).unwrap();
        let no_user = || encode::<u8>("al", None, 0).unwrap();
        assert_ne!(user(), user());
        assert_ne!(no_user(), no_user());
        assert_ne!(marker().unwrap(), marker().unwrap());
    }

    #[test]
    fn what_is_not_this_user_is_vacant() {
        for value in [
            &br#"{"id":"bo","detail":1}"#[..],
            br#"{"id":"al"}"#,
            br#"{"id":"al","detail":1"#,
            br#"["al",1]"#,
            br#" ["al",1]"#,
            b"",
            b"null",
            b"\xff",
            &marker().unwrap(),
        ] {
            let slot = Slot::<Value>::decode("al", Some(value));
            assert!(matches!(slot, Slot::Vacant));
        }
        assert!(matches!(Slot::<Value>::decode("al", None), Slot::Vacant));
    }

    /// A marker must not decode as a user for any `D`, including an `Option`.
    #[test]
    fn a_marker_is_never_a_user() {
        let (marker, nobody) = (marker().unwrap(), encode::<u8>("al", None, 0).unwrap());
        let decode = |value| Slot::<Option<u8>>::decode("al", Some(value));
        assert!(matches!(decode(&marker), Slot::Vacant));
        assert!(matches!(decode(&nobody), Slot::NoSuchUser));
    }
}
