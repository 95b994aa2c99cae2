//! The session for which a JWT is minted, and the claims of the application for it.

use std::{fmt, sync::Arc, time::SystemTime};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::claims::is_reserved;
use crate::{Error, ErrorKind, Scopes};

/// The session for which a JWT is minted, for [`JwtConfig::claims`](super::JwtConfig::claims).
///
/// At a login, it is the session that is about to start, with times by the clock of the service. At a
/// [replacement](crate::TokenManager::replace_token), it is the session as it is afterwards, with the metadata and
/// scopes of the [options](crate::ReplaceOptions). Its times are by the store's clock then, except `issued_at` and the
/// time of an [authentication](crate::ReplaceOptions::authenticated) by this replacement. `Debug` shows no metadata.
pub struct JwtSession<'a> {
    user_id: &'a str,
    metadata: Map<String, Value>,
    scopes: Scopes,
    pub(super) times: JwtTimes,
}

/// The times of a session that a JWT is minted for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JwtTimes {
    pub(crate) issued_at: SystemTime,
    pub(crate) created_at: SystemTime,
    pub(crate) authenticated_at: SystemTime,
    pub(crate) ends_at: SystemTime,
}

impl<'a> JwtSession<'a> {
    pub(crate) fn new(
        user_id: &'a str,
        metadata: Map<String, Value>,
        scopes: Scopes,
        times: JwtTimes,
    ) -> Self {
        Self {
            user_id,
            metadata,
            scopes,
            times,
        }
    }

    /// The user id: the claim `sub`.
    pub fn user_id(&self) -> &str {
        self.user_id
    }

    /// The metadata of the session, which the [login](crate::TokenOptions::metadata) set or a later change.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// The metadata of the session as a type of your own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialize`] if the metadata are not of this type.
    pub fn metadata_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let metadata = Value::Object(self.metadata.clone());
        serde_json::from_value(metadata)
            .map_err(|_| Error::wrong_type::<T>("the metadata of the session is"))
    }

    /// The scopes of the session: the claim `scope`.
    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// When the token is issued, by the clock of the service: the claim `iat`.
    pub fn issued_at(&self) -> SystemTime {
        self.times.issued_at
    }

    /// When the session started.
    pub fn created_at(&self) -> SystemTime {
        self.times.created_at
    }

    /// When the user last proved who they are: the claim `auth_time`.
    pub fn authenticated_at(&self) -> SystemTime {
        self.times.authenticated_at
    }

    /// The absolute end of the session: the claim `exp`.
    pub fn ends_at(&self) -> SystemTime {
        self.times.ends_at
    }
}

impl fmt::Debug for JwtSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSession")
            .field("user_id", &self.user_id)
            .field("scopes", &self.scopes)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

/// The function of the configuration that decides claims.
#[derive(Clone)]
pub(super) struct OwnClaims(Arc<Decide>);

type Decide = dyn Fn(&JwtSession<'_>) -> Result<Value, Error> + Send + Sync;

impl OwnClaims {
    pub(super) fn new<C: Serialize>(
        decide: impl Fn(&JwtSession<'_>) -> Result<C, Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |session| {
            serde_json::to_value(decide(session)?).map_err(|error| {
                let message = "the claims of `JwtConfig::claims` cannot be serialized as JSON";
                Error::with_source(ErrorKind::Serialize, message, error)
            })
        }))
    }

    /// The claims for this session, none of which is one that the crate sets.
    pub(super) fn of(&self, session: &JwtSession<'_>) -> Result<Map<String, Value>, Error> {
        let Value::Object(claims) = (self.0)(session)? else {
            let message = "the claims of `JwtConfig::claims` are not a JSON object";
            return Err(Error::new(ErrorKind::Serialize, message));
        };
        if let Some(name) = claims.keys().find(|name| is_reserved(name)) {
            let message =
                format!("`JwtConfig::claims` may not set the claim `{name}`: it is reserved");
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(claims)
    }
}

impl fmt::Debug for OwnClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnClaims").finish_non_exhaustive()
    }
}
