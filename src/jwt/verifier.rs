use std::{borrow::Cow, collections::HashMap, fmt, str, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{
    IgnoredKey, MAX_LEN, VerifiedClaims, VerifyingKey,
    claims::{Claims, Rules},
    crypto::Algorithm,
    jwk::read_set,
};
use crate::{Error, ErrorKind, RefusalReason, TokenId, token::TokenIds};

/// Verifies tokens offline, by their signature, type, issuer, audience and expiry alone.
///
/// It is for services without a store, and for gateways that refuse most invalid tokens early. **A logout has no effect
/// before the token expires**: issue such tokens with a short [`max_lifetime`](super::JwtConfig::max_lifetime), or keep
/// a list of the [ids](VerifiedClaims::token_id) of sessions that have ended.
///
/// [`JwtLayer`](crate::middleware::JwtLayer) is the middleware for it. Cloning is cheap.
#[derive(Clone)]
pub struct JwtVerifier(Arc<Verifier>);

struct Verifier {
    checks: Checks,
    ignored: Vec<IgnoredKey>,
}

/// The keys by their ids, and the rules for all tokens.
pub(super) struct Checks {
    keys: HashMap<Box<str>, Vec<VerifyingKey>>,
    rules: Rules,
}

/// Configures a [`JwtVerifier`]; from [`JwtVerifier::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct JwtVerifierBuilder {
    keys: Vec<VerifyingKey>,
    ignored: Vec<IgnoredKey>,
    rules: Rules,
}

impl JwtVerifierBuilder {
    pub(super) fn new(keys: impl IntoIterator<Item = VerifyingKey>, rules: Rules) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            ignored: Vec::new(),
            rules,
        }
    }

    /// Sets the issuer (`iss`) that tokens must have. Default: any or none.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.rules.issuer = Some(issuer.into());
        self
    }

    /// Sets the audience (`aud`) that tokens must name. Default: tokens must not name any (RFC 7519 §4.1.3).
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.rules.audience = Some(audience.into());
        self
    }

    /// Sets by how much clocks may differ, at most an hour. Default: 5 seconds.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.rules.leeway = leeway;
        self
    }

    /// Accepts only access tokens (RFC 9068).
    ///
    /// Their type (`typ`) is `at+jwt`, and they have the claims `iss`, `exp`, `aud`, `sub`, `client_id`, `iat` and
    /// `jti`. This setting needs an [issuer](Self::issuer) and an [audience](Self::audience). Default: the type is
    /// `JWT` or missing, and access tokens are refused.
    pub fn access_tokens(mut self) -> Self {
        self.rules.access_tokens = true;
        self
    }

    /// The keys of the JWK Set that are ignored; see [`JwtVerifier::ignored_keys`].
    pub fn ignored_keys(&self) -> &[IgnoredKey] {
        &self.ignored
    }

    /// Builds the verifier.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] without keys, for two keys with the same id and algorithm, for a leeway of more than an
    /// hour, and for [access tokens](Self::access_tokens) without issuer or audience.
    pub fn build(self) -> Result<JwtVerifier, Error> {
        let checks = Checks::new(self.keys, self.rules)?;
        Ok(JwtVerifier(Arc::new(Verifier {
            checks,
            ignored: self.ignored,
        })))
    }
}

impl JwtVerifier {
    /// Configures a verifier of tokens that are signed with the counterpart of one of these keys.
    pub fn builder(keys: impl IntoIterator<Item = VerifyingKey>) -> JwtVerifierBuilder {
        JwtVerifierBuilder::new(keys, Rules::default())
    }

    /// Configures a verifier with the keys of a JWK Set (RFC 7517), such as one from
    /// [`JwtConfig::jwk_set`](super::JwtConfig::jwk_set).
    ///
    /// Unusable keys are ignored: the [module](super#keys-of-a-jwk-set) lists the rules, and
    /// [`ignored_keys`](Self::ignored_keys) returns the keys and reasons.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the text is not a JWK Set, or has no usable key; then the error gives the reasons.
    pub fn from_jwk_set(json: &str) -> Result<JwtVerifierBuilder, Error> {
        let (keys, ignored) = read_set(json)?;
        Ok(JwtVerifierBuilder {
            ignored,
            ..Self::builder(keys)
        })
    }

    /// The keys of the JWK Set that are ignored, in the order of the set.
    ///
    /// Log them: tokens that they signed are refused.
    ///
    /// ```
    /// use tower_bearer_session::jwt::JwtVerifier;
    ///
    /// # fn f(jwk_set: &str) -> Result<(), tower_bearer_session::Error> {
    /// let verifier = JwtVerifier::from_jwk_set(jwk_set)?.audience("shop").build()?;
    /// for key in verifier.ignored_keys() {
    ///     eprintln!("ignored a key of the JWK Set: {key}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn ignored_keys(&self) -> &[IgnoredKey] {
        &self.0.ignored
    }

    /// Verifies a token, and returns its claims.
    ///
    /// # Errors
    ///
    /// The reason why the token is refused: [`RefusalReason::Malformed`] or [`RefusalReason::NotVerified`].
    pub fn verify(&self, token: &str) -> Result<VerifiedClaims, RefusalReason> {
        let verified = self.0.checks.verify(token)?;
        let expires_at = self.0.checks.rules.check(&verified.claims)?;
        let all = json(&verified.payload).ok_or(RefusalReason::NotVerified)?;
        let ids = verified.ids();
        Ok(VerifiedClaims::new(
            verified.claims,
            expires_at,
            ids.session,
            all,
            self.0.checks.rules.leeway,
        ))
    }
}

/// The header parameters that are read (RFC 7515 §4.1). Each may occur only once.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "is_present")]
    crit: bool,
}

/// Deserializes any value as `true`.
fn is_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|IgnoredAny| true)
}

/// A token with a valid signature, whose claims are not checked yet.
struct Signed {
    claims: Claims,
    payload: Vec<u8>,
    token_id: TokenId,
}

impl Signed {
    fn ids(&self) -> TokenIds {
        TokenIds::new(self.token_id, self.claims.session().as_ref())
    }
}

impl Checks {
    pub(super) fn new(
        keys: impl IntoIterator<Item = VerifyingKey>,
        rules: Rules,
    ) -> Result<Self, Error> {
        let error = |message: String| Err(Error::new(ErrorKind::Config, message));
        rules.validate()?;
        let mut by_id = HashMap::<_, Vec<VerifyingKey>>::new();
        for key in keys {
            let others = by_id.entry(key.id().into()).or_default();
            if others
                .iter()
                .any(|other| other.algorithm() == key.algorithm())
            {
                return error(format!(
                    "there are two keys with the id {:?} and the same algorithm",
                    key.id()
                ));
            }
            others.push(key);
        }
        if by_id.is_empty() {
            return error("a verifier needs at least one key".to_owned());
        }
        Ok(Self { keys: by_id, rules })
    }

    /// Verifies a token by the keys and the rules, and returns its user id and ids.
    pub(super) fn identify(&self, token: &str) -> Result<(String, TokenIds), RefusalReason> {
        let verified = self.verify(token)?;
        self.rules.check(&verified.claims)?;
        let ids = verified.ids();
        Ok((verified.claims.sub, ids))
    }

    /// Verifies the type and signature of a token (RFC 7515 §5.2), but not its claims.
    fn verify(&self, token: &str) -> Result<Signed, RefusalReason> {
        if token.len() > MAX_LEN {
            return Err(RefusalReason::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(RefusalReason::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(RefusalReason::Malformed)?;
        // Without padding and stray bits after the last octet, so that there is one encoding only.
        let decode = |part: &str| BASE64URL.decode(part).map_err(|_| RefusalReason::Malformed);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header: Header<'_> = json(&header).ok_or(RefusalReason::Malformed)?;
        // RFC 7515 §4.1.11: refuse critical extensions, none of which is supported.
        if header.crit || !self.rules.accept_type(header.typ.as_deref()) {
            return Err(RefusalReason::NotVerified);
        }
        let keys = header.kid.and_then(|id| self.keys.get(&*id));
        let key = keys
            .zip(Algorithm::named(&header.alg))
            .and_then(|(keys, algorithm)| keys.iter().find(|key| key.algorithm() == algorithm));
        let key = key.ok_or(RefusalReason::NotVerified)?;
        key.verify(message.as_bytes(), &signature)
            .map_err(|_| RefusalReason::NotVerified)?;
        Ok(Signed {
            claims: json(&payload).ok_or(RefusalReason::NotVerified)?,
            payload,
            token_id: token_id(message),
        })
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// The handle of a token, from its signed part: header and claims.
///
/// It does not depend on the signature: on P-256, whoever has one valid signature can compute a second one, and a token
/// must not have two handles.
pub(super) fn token_id(message: &str) -> TokenId {
    TokenId::of(message)
}

/// Reads a JSON object in UTF-8 (RFC 7515 §5.2, RFC 7519 §7.2).
fn json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    // Serde would not check the strings that it skips, and would also read a struct from an array.
    let text = str::from_utf8(text).ok()?;
    let is_object = text.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok())?
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtVerifier").field(&self.0.checks).finish()
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}
