//! The value that a store caches for a user, as bytes.
//!
//! | first byte | meaning |
//! |---|---|
//! | `{` | a user: the JSON `{"id":…,"detail":…,"v":"<nonce>"}` |
//! | `-` | there is no such user |
//! | anything else | nothing that can be used: a miss |
//!
//! No value is ever written twice: each ends in a nonce. A load first makes sure that there is a value
//! (a [`marker`], if need be), and its outcome is put in place by a compare-and-set against that value.
//! So if the value is still there, nothing has happened since the load began; whatever did happen,
//! an invalidation, a newer load, the expiry of one, the outcome of the older load is not cached.

use std::{borrow::Cow, str, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, ErrorKind};

/// The longest that a load may take, in all programs that share the cache.
pub(super) const MAX_LOAD_TIME: Duration = Duration::from_secs(30);
/// How long a marker is kept: longer than any load that may be in flight.
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
    /// Total: what cannot be decoded, or is of another user, is vacant.
    pub(super) fn decode(user_id: &str, value: Option<&[u8]>) -> Self {
        match value {
            Some([b'-', ..]) => Self::NoSuchUser,
            Some(value) => Self::decode_user(user_id, value).map_or(Self::Vacant, Self::User),
            None => Self::Vacant,
        }
    }

    fn decode_user(user_id: &str, value: &[u8]) -> Option<D> {
        // As a text: what is one as a whole need not be looked at piece by piece.
        let text = str::from_utf8(value).ok()?;
        let cached: Cached<'_, D> = serde_json::from_str(text).ok()?;
        (cached.id == user_id).then_some(cached.detail)
    }
}

/// The value for a user; `None`: for one that does not exist.
///
/// A value that cannot be decoded again, or is longer than `max_len`, is an error: its user would be loaded anew at
/// every request.
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

/// What serde says, without the value that it may quote: that is the user's.
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

/// A value that means nothing but "look anew".
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

    /// Other services and languages read it, too.
    #[test]
    fn the_format_is_the_documented_one() {
        let value = encode("al", Some(&json!({"name": "Al"})), 1000).unwrap();
        let text = std::str::from_utf8(&value).unwrap();
        let nonce = text.strip_prefix(r#"{"id":"al","detail":{"name":"Al"},"v":""#);
        assert_eq!(nonce.unwrap().len(), 16 + r#""}"#.len());
        assert_eq!(decode(&value), Some(json!({"name": "Al"})));
        assert_eq!(decode(br#"{"id":"al","detail":1}"#), Some(json!(1)));
    }

    /// Compare-and-set relies on it.
    #[test]
    fn no_value_is_written_twice() {
        let user = || encode("al", Some(&1), 1000).unwrap();
        let nobody = || encode::<u8>("al", None, 0).unwrap();
        assert_ne!(user(), user());
        assert_ne!(nobody(), nobody());
        assert_ne!(marker().unwrap(), marker().unwrap());
    }

    #[test]
    fn what_is_not_this_user_is_vacant() {
        for value in [
            &br#"{"id":"bo","detail":1}"#[..],
            br#"{"id":"al"}"#,
            br#"{"id":"al","detail":1"#,
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

    /// Whatever `D` is: `Option` must not make a marker look like a user.
    #[test]
    fn a_marker_is_never_a_user() {
        let (marker, nobody) = (marker().unwrap(), encode::<u8>("al", None, 0).unwrap());
        let decode = |value| Slot::<Option<u8>>::decode("al", Some(value));
        assert!(matches!(decode(&marker), Slot::Vacant));
        assert!(matches!(decode(&nobody), Slot::NoSuchUser));
    }
}
