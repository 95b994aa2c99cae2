use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer, de::DeserializeOwned, ser::SerializeStruct};
use serde_json::{Map, Value};

use super::metadata;
use crate::{
    Error, ErrorKind, Scopes, Token, TokenId,
    store::{MAX_TTL, SessionRecord},
};

/// A new token, with its times by the store's clock, and the sessions that were evicted for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IssuedToken {
    /// The token, to send to the client.
    pub token: Token,
    /// When the token was issued. For a [replacement](crate::TokenManager::replace_token) that keeps the expiry or cuts
    /// it at the absolute end, it is the moment of the check before it: in a handler, that of the request.
    pub issued_at: SystemTime,
    /// When the token expires unless it is refreshed.
    pub expires_at: SystemTime,
    /// The absolute end of the session, if it has one: no refresh moves it.
    pub ends_at: Option<SystemTime>,
    /// The sessions that were evicted to keep the session limit, in the order of their eviction. Of more than 512,
    /// there may be only the first 512.
    pub evicted: Vec<TokenInfo>,
}

/// A session in a list: everything about it except its token. All times are by the store's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenInfo {
    id: TokenId,
    session: SessionRecord,
    metadata: Map<String, Value>,
    scopes: Scopes,
    last_seen_at: Option<SystemTime>,
}

impl TokenInfo {
    pub(super) fn new((id, mut session): (TokenId, SessionRecord)) -> Self {
        // The ids of its tokens are of no use to anybody.
        session.rotation = None;
        let metadata = session.metadata.as_deref();
        Self {
            id,
            metadata: metadata::entries(metadata),
            scopes: metadata::scopes(metadata),
            last_seen_at: metadata::seen_at(metadata),
            session,
        }
    }

    /// The public handle of the session, for [`delete_user_token`](crate::TokenManager::delete_user_token).
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// When the session started.
    pub fn created_at(&self) -> SystemTime {
        self.session.created_at
    }

    /// When the session was last refreshed, or else when it started.
    pub fn refreshed_at(&self) -> SystemTime {
        self.session.refreshed_at
    }

    /// Whether only a newer version of this crate can interpret the session: its start, last refresh and expiry are
    /// known, and nothing else. It can be listed and ended.
    pub fn is_opaque(&self) -> bool {
        self.session.is_opaque
    }

    /// When the user last proved who they are: at the login, or when a
    /// [replacement](crate::ReplaceOptions::authenticated) or
    /// [`mark_authenticated`](crate::Session::mark_authenticated) noted it.
    pub fn authenticated_at(&self) -> SystemTime {
        self.session.authenticated_at
    }

    /// When a request with the session came last, as noted by a layer with
    /// [`note_last_seen`](crate::SessionLayer::note_last_seen); in whole seconds. `None` until the first one was noted,
    /// in the background: until then, it was last used when it [began](Self::created_at).
    pub fn last_seen_at(&self) -> Option<SystemTime> {
        self.last_seen_at
    }

    /// When the session expires unless it is refreshed.
    pub fn expires_at(&self) -> SystemTime {
        self.session.expires_at
    }

    /// The absolute end of the session, if it has one: no refresh moves it.
    pub fn ends_at(&self) -> Option<SystemTime> {
        self.session.ends_at
    }

    /// The metadata that the login set with [`TokenOptions::metadata`](crate::TokenOptions::metadata), as changed
    /// since.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// The metadata as a type of your own; see [`Session::metadata_as`](crate::Session::metadata_as).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialize`] if the metadata are not of this type.
    pub fn metadata_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        metadata::entries_as(self.session.metadata.as_deref())
    }

    /// The scopes that the login set with [`TokenOptions::scopes`](crate::TokenOptions::scopes), as changed since.
    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }
}

/// Serializes as an object with `id`, `created_at`, `refreshed_at`, `authenticated_at`, `expires_at`, `ends_at` (if
/// there is one), `last_seen_at` (if it is known), `metadata`, `scope` (if there are any), and `opaque: true` if [it
/// is](TokenInfo::is_opaque).
///
/// Times are in seconds since the Unix epoch (the NumericDate of RFC 7519).
impl Serialize for TokenInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("TokenInfo", 10)?;
        object.serialize_field("id", &self.id)?;
        object.serialize_field("created_at", &numeric_date(self.created_at()))?;
        object.serialize_field("refreshed_at", &numeric_date(self.refreshed_at()))?;
        object.serialize_field("authenticated_at", &numeric_date(self.authenticated_at()))?;
        object.serialize_field("expires_at", &numeric_date(self.expires_at()))?;
        match self.ends_at() {
            Some(end) => object.serialize_field("ends_at", &numeric_date(end))?,
            None => object.skip_field("ends_at")?,
        }
        match self.last_seen_at {
            Some(time) => object.serialize_field("last_seen_at", &numeric_date(time))?,
            None => object.skip_field("last_seen_at")?,
        }
        object.serialize_field("metadata", &self.metadata)?;
        match self.scopes.is_empty() {
            true => object.skip_field("scope")?,
            false => object.serialize_field("scope", &self.scopes)?,
        }
        match self.is_opaque() {
            true => object.serialize_field("opaque", &true)?,
            false => object.skip_field("opaque")?,
        }
        object.end()
    }
}

fn numeric_date(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The outcome of [`TokenManager::refresh_users`](crate::TokenManager::refresh_users), by user.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use = "some users may have failed"]
pub struct RefreshedUsers {
    /// The ids of the users that were loaded and cached.
    pub refreshed: Vec<String>,
    /// The ids for which the loader found no user.
    pub missing: Vec<String>,
    /// The ids whose load failed, with the error.
    pub failed: Vec<(String, Error)>,
}

impl RefreshedUsers {
    pub(super) fn record(&mut self, user_id: String, outcome: Result<bool, Error>) {
        match outcome {
            Ok(true) => self.refreshed.push(user_id),
            Ok(false) => self.missing.push(user_id),
            Err(error) => self.failed.push((user_id, error)),
        }
    }
}

/// Rounds a duration up to milliseconds, and refuses one that is zero or too long.
pub(super) fn check_ttl(ttl: Duration) -> Result<Duration, Error> {
    if ttl.is_zero() {
        return Err(Error::new(ErrorKind::InvalidInput, "the duration is zero"));
    }
    if ttl > MAX_TTL {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("the duration {ttl:?} is longer than the maximum, {MAX_TTL:?}"),
        ));
    }
    let millis = ttl.as_nanos().div_ceil(1_000_000);
    Ok(Duration::from_millis(millis as u64))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::store::NewSession;

    #[test]
    fn a_token_info_is_json_with_numeric_dates() {
        let id: TokenId = "4kwus3f3oUnjsz4F7CAgaQ".parse().unwrap();
        let new = NewSession {
            metadata: Some(Bytes::from_static(br#"{"device":"phone"}"#)),
            ..NewSession::new(Duration::from_millis(1500))
        };
        let mut session = SessionRecord::begin(&new, SystemTime::UNIX_EPOCH);
        let text = json!({
            "id": id, "created_at": 0, "refreshed_at": 0, "authenticated_at": 0, "expires_at": 1,
            "metadata": { "device": "phone" },
        });
        let info = TokenInfo::new((id, session.clone()));
        assert_eq!(serde_json::to_value(info).unwrap(), text);

        session.ends_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        session.is_opaque = true;
        let info = TokenInfo::new((id, session));
        let json = serde_json::to_value(info).unwrap();
        assert_eq!(
            (&json["ends_at"], &json["opaque"]),
            (&json!(9), &json!(true))
        );
    }

    #[test]
    fn durations_round_up_to_milliseconds() {
        let checked = |nanos| check_ttl(Duration::from_nanos(nanos)).unwrap();
        assert_eq!(checked(1), Duration::from_millis(1));
        assert_eq!(checked(1_000_000), Duration::from_millis(1));
        assert_eq!(checked(1_000_001), Duration::from_millis(2));
        assert_eq!(check_ttl(MAX_TTL).unwrap(), MAX_TTL);
    }

    #[test]
    fn durations_that_cannot_be_are_refused() {
        for bad in [
            Duration::ZERO,
            MAX_TTL + Duration::from_nanos(1),
            Duration::MAX,
        ] {
            assert_eq!(check_ttl(bad).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}
