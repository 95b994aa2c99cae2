//! The claims of tokens, and the rules for them.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{Error, ErrorKind, RefusalReason, Scopes, TokenId, token::check_user_id};

/// The longest leeway.
const MAX_LEEWAY: Duration = Duration::from_secs(60 * 60);
/// The claims that have an accessor of their own.
const REGISTERED: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];
/// The others that the crate sets or reads.
const OTHERS: [&str; 4] = ["sid", "client_id", "scope", "auth_time"];

/// The claims of a verified JWT (RFC 7519 §4).
///
/// [`JwtVerifier::verify`](super::JwtVerifier::verify) returns them, and a [`JwtLayer`](crate::middleware::JwtLayer)
/// attaches them to the extensions of each request with an accepted token. With feature `axum` they are an extractor.
/// Cloning is cheap. `Debug` shows ids, issuer, audience and times, but no other claims.
///
/// To revoke sessions before their tokens expire, keep a list of their [ids](Self::token_id) until they expire. (The
/// `jti` is another one for each token that [replaces](crate::TokenManager::replace_token) an earlier one.)
///
/// ```
/// # use std::collections::HashSet;
/// use tower_bearer_session::{TokenId, jwt::VerifiedClaims};
///
/// fn is_denied(claims: &VerifiedClaims, denied: &HashSet<TokenId>) -> bool {
///     denied.contains(claims.token_id())
/// }
/// ```
#[derive(Clone)]
pub struct VerifiedClaims(Arc<Inner>);

struct Inner {
    user_id: Arc<str>,
    token_id: TokenId,
    issuer: Option<String>,
    audience: Vec<String>,
    expires_at: SystemTime,
    not_before: Option<SystemTime>,
    issued_at: Option<SystemTime>,
    jti: Option<String>,
    scopes: Scopes,
    authenticated_at: Option<SystemTime>,
    other: Map<String, Value>,
}

/// Whether the crate sets or reads a claim, which the application cannot decide then. Some readers, such as Go's
/// `encoding/json`, ignore the case of names.
pub(super) fn is_reserved(name: &str) -> bool {
    let mut reserved = REGISTERED.iter().chain(&OTHERS);
    reserved.any(|reserved| reserved.eq_ignore_ascii_case(name))
}

impl VerifiedClaims {
    pub(super) fn new(
        claims: Claims,
        expires_at: SystemTime,
        token_id: TokenId,
        mut all: Map<String, Value>,
        leeway: Duration,
    ) -> Self {
        all.retain(|name, _| !REGISTERED.contains(&&**name));
        let scopes = claims.scope.as_ref().and_then(Value::as_str);
        let authenticated_at = claims.auth_time.as_ref().and_then(Value::as_f64);
        Self(Arc::new(Inner {
            scopes: scopes
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
            // Nobody has proved anything in the future: that is another unit, or a wrong clock.
            authenticated_at: authenticated_at
                .and_then(time)
                .filter(|time| *time <= SystemTime::now() + leeway),
            user_id: claims.sub.into(),
            token_id,
            issuer: claims.iss,
            audience: claims.aud.map(Audience::into_vec).unwrap_or_default(),
            expires_at,
            not_before: claims.nbf.and_then(time),
            issued_at: claims.iat.and_then(time),
            jti: claims.jti,
            other: all,
        }))
    }

    /// The user id that the token was issued for (`sub`).
    pub fn user_id(&self) -> &str {
        &self.0.user_id
    }

    pub(crate) fn shared_user_id(&self) -> Arc<str> {
        Arc::clone(&self.0.user_id)
    }

    /// The public id of the token's session, the same as in services with a store.
    ///
    /// It is a claim (`sid`), or is derived from the signed part, so whoever has the token cannot change it.
    pub fn token_id(&self) -> &TokenId {
        &self.0.token_id
    }

    /// The issuer (`iss`).
    pub fn issuer(&self) -> Option<&str> {
        self.0.issuer.as_deref()
    }

    /// The audience (`aud`) as a list, also if the claim is a single string; empty without the claim.
    pub fn audience(&self) -> &[String] {
        &self.0.audience
    }

    /// When the token expires (`exp`).
    pub fn expires_at(&self) -> SystemTime {
        self.0.expires_at
    }

    /// When the token became valid (`nbf`).
    pub fn not_before(&self) -> Option<SystemTime> {
        self.0.not_before
    }

    /// When the token was issued (`iat`).
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.0.issued_at
    }

    /// The token's own id (`jti`), which its issuer gave to no other token.
    pub fn jti(&self) -> Option<&str> {
        self.0.jti.as_deref()
    }

    /// The scopes (`scope`, RFC 8693 §4.2); none without the claim, or if it is not a string of scopes with spaces
    /// between them.
    ///
    /// [`RequireScope`](crate::middleware::RequireScope) asks for them under a
    /// [`JwtLayer`](crate::middleware::JwtLayer).
    pub fn scopes(&self) -> &Scopes {
        &self.0.scopes
    }

    /// When the user had last proved who they are as the token was issued (`auth_time`, RFC 9068 §2.2.1); in whole
    /// seconds in tokens of this crate. `None` without the claim, or if it is further in the future than the leeway.
    pub fn authenticated_at(&self) -> Option<SystemTime> {
        self.0.authenticated_at
    }

    /// All other claims, such as `client_id` or [those of your own](super::JwtConfig::claims); also `scope` and
    /// `auth_time`, as they are in the token.
    ///
    /// If two have the same name, the last one counts (RFC 7519 §4).
    #[doc(alias = "claims")]
    pub fn other(&self) -> &Map<String, Value> {
        &self.0.other
    }

    /// The [other claims](Self::other) as a type of your own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialize`] if the claims are not of this type.
    pub fn other_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let other = Value::Object(self.0.other.clone());
        serde_json::from_value(other)
            .map_err(|_| Error::wrong_type::<T>("the claims of the token are"))
    }
}

impl fmt::Debug for VerifiedClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedClaims")
            .field("user_id", &self.0.user_id)
            .field("token_id", &self.0.token_id)
            .field("issuer", &self.0.issuer)
            .field("audience", &self.0.audience)
            .field("jti", &self.0.jti)
            .field("issued_at", &self.0.issued_at)
            .field("expires_at", &self.0.expires_at)
            .finish_non_exhaustive()
    }
}

/// The claims that decide whether a token is accepted. Each may occur only once.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) sub: String,
    iss: Option<String>,
    aud: Option<Audience>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    jti: Option<String>,
    sid: Option<Value>,
    client_id: Option<Value>,
    scope: Option<Value>,
    auth_time: Option<Value>,
}

impl Claims {
    /// The session that the token names; `None` if it is the one that began with this token. Another issuer may use
    /// this claim for ids of its own.
    pub(super) fn session(&self) -> Option<TokenId> {
        self.sid.as_ref()?.as_str()?.parse().ok()
    }
}

/// The `aud` claim: a list, or a string in the special case of one audience (RFC 7519 §4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn includes(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(list) => list.iter().any(|one| one == audience),
        }
    }

    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Several(list) => list,
        }
    }
}

/// The rules for the type and claims of signed tokens.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) leeway: Duration,
    /// Whether only access tokens are accepted (RFC 9068).
    pub(super) access_tokens: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(5),
            access_tokens: false,
        }
    }
}

impl Rules {
    pub(super) fn validate(&self) -> Result<(), Error> {
        let error = |message: String| Err(Error::new(ErrorKind::Config, message));
        if self.leeway > MAX_LEEWAY {
            return error(format!("the leeway is longer than {MAX_LEEWAY:?}"));
        }
        // RFC 9068 §4: both must be checked.
        if self.access_tokens && (self.issuer.is_none() || self.audience.is_none()) {
            return error("access tokens need an issuer and an audience".to_owned());
        }
        Ok(())
    }

    /// The `typ` of the tokens (RFC 7519 §5.1, RFC 9068 §2.1).
    pub(super) fn token_type(&self) -> &'static str {
        if self.access_tokens { "at+jwt" } else { "JWT" }
    }

    /// Whether tokens of this `typ` are accepted. The same key may sign tokens of other types for other purposes.
    pub(super) fn accept_type(&self, typ: Option<&str>) -> bool {
        let Some(typ) = typ else {
            return !self.access_tokens;
        };
        // RFC 7515 §4.1.9: media types are compared without regard to case, and `application/` may be left out.
        let name = match typ.split_at_checked("application/".len()) {
            Some((prefix, name)) if prefix.eq_ignore_ascii_case("application/") => name,
            _ => typ,
        };
        name.eq_ignore_ascii_case(self.token_type())
    }

    /// Checks the claims of a token with a valid signature, and returns its expiry.
    pub(super) fn check(&self, claims: &Claims) -> Result<SystemTime, RefusalReason> {
        let now = SystemTime::now();
        let at = |seconds: f64| time(seconds).ok_or(RefusalReason::NotVerified);
        let expires_at = at(claims.exp.ok_or(RefusalReason::NotVerified)?)?;
        let starts_at = claims.nbf.map(at).transpose()?;
        let issuer_is_right = match &self.issuer {
            Some(issuer) => claims.iss.as_ref() == Some(issuer),
            None => true,
        };
        let audience_is_right = match (&self.audience, &claims.aud) {
            (Some(audience), Some(claimed)) => claimed.includes(audience),
            // RFC 7519 §4.1.3: without a configured audience, a token with one is for another service.
            (audience, claimed) => audience.is_none() && claimed.is_none(),
        };
        // RFC 9068 §2.2; its other claims are checked for every token.
        let is_complete = !self.access_tokens
            || claims.iat.is_some()
                && claims.jti.is_some()
                && claims.client_id.as_ref().is_some_and(Value::is_string);
        // RFC 7519 §4.1.4: not accepted on or after `exp`. §4.1.5: not before `nbf`.
        let is_live = now < expires_at + self.leeway
            && starts_at.is_none_or(|start| start <= now + self.leeway);
        let accepted = issuer_is_right
            && audience_is_right
            && is_complete
            && is_live
            && check_user_id(&claims.sub).is_ok();
        accepted
            .then_some(expires_at)
            .ok_or(RefusalReason::NotVerified)
    }
}

/// A NumericDate (RFC 7519 §2); `None` if it is out of range.
fn time(seconds: f64) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    // Leave room to add or subtract the leeway.
    UNIX_EPOCH
        .checked_add(since.checked_add(MAX_LEEWAY)?)?
        .checked_sub(MAX_LEEWAY)
}
