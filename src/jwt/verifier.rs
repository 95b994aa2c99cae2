use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use serde::{Deserialize, de::IgnoredAny};

use super::{MAX_LEN, VerifyingKey};
use crate::{Error, ErrorKind, Refusal, TokenId, token::check_user_id};

/// The longest leeway that makes sense.
const MAX_LEEWAY: Duration = Duration::from_secs(60 * 60);

/// What a token has to say, besides being signed.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) leeway: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(5),
        }
    }
}

/// Verifies tokens offline: by their signature, issuer, audience and expiry alone.
///
/// For services that have no store, or to let a gateway turn away most of what is no good. **A logout is not seen before
/// the token expires**: mint such tokens with a short [`max_lifetime`](crate::TokenOptions::max_lifetime). A
/// token without an expiry is not accepted at all.
///
/// [`JwtLayer`](crate::middleware::JwtLayer) is the middleware for it. Cloning is cheap.
#[derive(Clone)]
pub struct JwtVerifier(Arc<Checks>);

/// The checks for the tokens of each key.
pub(super) struct Checks(HashMap<Box<str>, (DecodingKey, Validation)>);

/// What a verified token says.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    user_id: String,
    token_id: TokenId,
    jti: Option<String>,
    issued_at: Option<SystemTime>,
    expires_at: SystemTime,
}

impl VerifiedToken {
    /// Whom it was minted for (`sub`).
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// Its public handle, the same as at the services that have a store.
    ///
    /// It is of the text. An ES256 signature has a second spelling that whoever has the token can compute: to
    /// recognise a token, as for a list of those that are denied, use the [`jti`](Self::jti).
    pub fn token_id(&self) -> &TokenId {
        &self.token_id
    }

    /// Its own id (`jti`), which nobody can change; `None` if it has none.
    pub fn jti(&self) -> Option<&str> {
        self.jti.as_deref()
    }

    /// When it was minted (`iat`), to the second; `None` if it does not say so.
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.issued_at
    }

    /// When it expires (`exp`), to the second.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) sub: String,
    jti: Option<String>,
    iat: Option<f64>,
    exp: Option<f64>,
    // One, and a text: else something else may be read in it elsewhere.
    #[serde(rename = "iss")]
    _issuer: Option<String>,
    /// Whatever it is, it is for somebody.
    aud: Option<IgnoredAny>,
}

/// Configures a [`JwtVerifier`]; made by [`JwtVerifier::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct JwtVerifierBuilder {
    keys: Vec<VerifyingKey>,
    rules: Rules,
}

impl JwtVerifierBuilder {
    pub(super) fn new(keys: impl IntoIterator<Item = VerifyingKey>, rules: Rules) -> Self {
        let keys = keys.into_iter().collect();
        Self { keys, rules }
    }

    /// The issuer (`iss`) that tokens must name. Default: any or none.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.rules.issuer = Some(issuer.into());
        self
    }

    /// The audience (`aud`) that tokens must name. Default: they must not name any (RFC 7519 §4.1.3).
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.rules.audience = Some(audience.into());
        self
    }

    /// By how much clocks may differ, at most an hour; whole seconds count. Default: 5 seconds.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.rules.leeway = leeway;
        self
    }

    /// The verifier.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] without keys, for two keys with the same id, and for a leeway of more than an hour.
    pub fn build(self) -> Result<JwtVerifier, Error> {
        Checks::new(&self.keys, &self.rules, true).map(|checks| JwtVerifier(Arc::new(checks)))
    }
}

impl JwtVerifier {
    /// A verifier for tokens that are signed with the counterpart of one of these keys.
    pub fn builder(keys: impl IntoIterator<Item = VerifyingKey>) -> JwtVerifierBuilder {
        JwtVerifierBuilder::new(keys, Rules::default())
    }

    /// The same with the keys of a JWK Set (RFC 7517), such as [`JwtConfig::jwk_set`](super::JwtConfig::jwk_set) makes.
    ///
    /// Keys without an id, for other algorithms or for other uses are left out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the text is no JWK Set, or has no key that can be used.
    pub fn from_jwk_set(json: &str) -> Result<JwtVerifierBuilder, Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let error = |message| Error::new(ErrorKind::Config, message);
        let set: Set = serde_json::from_str(json).map_err(|_| error("this is no JWK Set"))?;
        let keys = set.keys.into_iter().filter_map(|key| {
            let jwk: Jwk = serde_json::from_value(key).ok()?;
            VerifyingKey::from_jwk(&jwk)
        });
        // Of two with the same id, which somebody else's set may have, the first counts.
        let mut ids = HashSet::new();
        let builder = Self::builder(keys.filter(|key| ids.insert(key.id.clone())));
        if builder.keys.is_empty() {
            return Err(error("the JWK Set has no key that can be used"));
        }
        Ok(builder)
    }

    /// What this token says.
    ///
    /// # Errors
    ///
    /// Why it is not to be accepted: [`Refusal::Malformed`] or [`Refusal::NotVerified`].
    pub fn verify(&self, token: &str) -> Result<VerifiedToken, Refusal> {
        let claims = self.0.verify(token)?;
        Ok(VerifiedToken {
            token_id: TokenId::of(token),
            issued_at: claims.iat.and_then(time),
            expires_at: claims.exp.and_then(time).ok_or(Refusal::NotVerified)?,
            jti: claims.jti,
            user_id: claims.sub,
        })
    }
}

impl Checks {
    pub(super) fn new(
        keys: &[VerifyingKey],
        rules: &Rules,
        expiry_required: bool,
    ) -> Result<Self, Error> {
        let error = |message: String| Err(Error::new(ErrorKind::Config, message));
        if rules.leeway > MAX_LEEWAY {
            return error(format!("the leeway is longer than {MAX_LEEWAY:?}"));
        }
        if keys.is_empty() {
            return error("a verifier needs a key".to_owned());
        }
        let mut checks = HashMap::new();
        for key in keys {
            let check = (key.key.clone(), validation(key, rules, expiry_required));
            if checks.insert(key.id.clone(), check).is_some() {
                return error(format!("there are two keys with the id {:?}", key.id));
            }
        }
        Ok(Self(checks))
    }

    /// Reads a token, if it is signed by one of the keys with the algorithm of that key, and is as the rules say.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        if token.len() > MAX_LEN {
            return Err(Refusal::Malformed);
        }
        let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
        // RFC 7515 §4.1.11: what must be understood, and is not, is refused.
        if header.crit.is_some() || !header.typ.as_deref().is_none_or(is_jwt) {
            return Err(Refusal::NotVerified);
        }
        let key = header.kid.and_then(|id| self.0.get(&*id));
        let (key, validation) = key.ok_or(Refusal::NotVerified)?;
        let verified = decode::<Claims>(token, key, validation);
        let claims = verified.map_err(|_| Refusal::NotVerified)?.claims;
        check_user_id(&claims.sub).map_err(|_| Refusal::NotVerified)?;
        if claims.aud.is_some() && validation.aud.is_none() {
            return Err(Refusal::NotVerified);
        }
        Ok(claims)
    }
}

fn validation(key: &VerifyingKey, rules: &Rules, expiry_required: bool) -> Validation {
    let mut validation = Validation::new(key.algorithm);
    let mut required = vec!["sub"];
    if expiry_required {
        required.push("exp");
    }
    if let Some(issuer) = &rules.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &rules.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation.validate_nbf = true;
    // RFC 7519 §4.1.4: not on or after this time.
    validation.reject_tokens_expiring_in_less_than = 1;
    validation.leeway = rules.leeway.as_secs();
    validation
}

/// The type of a token (RFC 7519 §5.1); others may be signed with the same key, but mean something else.
fn is_jwt(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("JWT") || kind.eq_ignore_ascii_case("application/jwt")
}

/// A NumericDate (RFC 7519 §2); `None` if it is out of range.
fn time(seconds: f64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtVerifier").field(&self.0).finish()
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
