//! The value that a store caches for a user, as bytes.
//!
//! | first byte | meaning |
//! |---|---|
//! | `{` | a user: the JSON `{"id":…,"detail":…}` |
//! | `-` | there is no such user |
//! | anything else | nothing that can be used: a miss |
//!
//! [`invalidated`] makes one of the last kind, different each time. Filling is a compare-and-set against
//! the value that was seen before the load began, so a load that began before the invalidation finds
//! another value than it saw, and is not cached.

use std::{fmt::Write, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, ErrorKind};

/// "There is no such user".
pub(super) const NO_SUCH_USER: &[u8] = b"-";

/// How long an invalidation is remembered: longer than any load that may be in flight.
const INVALIDATED_TTL: Duration = Duration::from_secs(60);

pub(super) enum Slot<D> {
    User(D),
    NoSuchUser,
    Vacant,
}

#[derive(Serialize)]
struct CachedRef<'a, D> {
    id: &'a str,
    detail: &'a D,
}

#[derive(Deserialize)]
struct Cached<D> {
    id: String,
    detail: D,
}

impl<D: DeserializeOwned> Slot<D> {
    /// Total: what cannot be decoded, or is of another user, is vacant.
    pub(super) fn decode(user_id: &str, value: Option<&[u8]>) -> Self {
        match value {
            Some(NO_SUCH_USER) => Self::NoSuchUser,
            Some(value) => match serde_json::from_slice::<Cached<D>>(value) {
                Ok(cached) if cached.id == user_id => Self::User(cached.detail),
                _ => Self::Vacant,
            },
            None => Self::Vacant,
        }
    }
}

pub(super) fn encode<D: Serialize>(id: &str, detail: &D) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(&CachedRef { id, detail }).map_err(|source| {
        let message = "the user's detail cannot be written as JSON";
        Error::with_source(ErrorKind::Serialize, message, source)
    })
}

/// A value that means nothing but "look anew", and how long to keep it.
pub(super) fn invalidated() -> Result<(Vec<u8>, Duration), Error> {
    let nonce = getrandom::u64().map_err(|source| {
        let message = "the operating system gave no random bytes";
        Error::with_source(ErrorKind::Random, message, source)
    })?;
    let mut value = String::from("!");
    write!(value, "{nonce:016x}").expect("writing to a string cannot fail");
    Ok((value.into_bytes(), INVALIDATED_TTL))
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

    #[test]
    fn the_format_is_the_documented_one() {
        let value = encode("al", &json!({"name": "Al"})).unwrap();
        assert_eq!(value, br#"{"id":"al","detail":{"name":"Al"}}"#);
        assert_eq!(decode(&value), Some(json!({"name": "Al"})));
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
            &invalidated().unwrap().0,
        ] {
            assert!(matches!(
                Slot::<Value>::decode("al", Some(value)),
                Slot::Vacant
            ));
        }
        assert!(matches!(Slot::<Value>::decode("al", None), Slot::Vacant));
        assert!(matches!(
            Slot::<Value>::decode("al", Some(b"-")),
            Slot::NoSuchUser
        ));
    }

    /// The fields of `D` decide, not their absence: `Option` must not make a marker look like a user.
    #[test]
    fn a_marker_is_never_a_user() {
        let (marker, _) = invalidated().unwrap();
        assert!(matches!(
            Slot::<Option<u8>>::decode("al", Some(&marker)),
            Slot::Vacant
        ));
        assert_ne!(marker, invalidated().unwrap().0);
    }
}
