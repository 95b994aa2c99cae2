use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};

use super::{
    IgnoredKey, MAX_LEN, VerifiedClaims, VerifyingKey,
    claims::{Claims, Rules},
    crypto::Algorithm,
    jwk::read_set,
};
use crate::{Error, ErrorKind, RefusalReason, TokenId};

/// Verifies tokens offline: by their signature, type, issuer, audience and expiry alone.
///
/// For services that have no store, or to let a gateway turn away most of what is no good. **A logout is not seen before
/// the token expires**: mint such tokens with a short [`max_lifetime`](super::JwtConfig::max_lifetime), or keep a list of
/// the [`jti`](VerifiedClaims::jti) of those that are not to be accepted any more.
///
/// [`JwtLayer`](crate::middleware::JwtLayer) is the middleware for it. Cloning is cheap.
#[derive(Clone)]
pub struct JwtVerifier(Arc<Verifier>);

struct Verifier {
    checks: Checks,
    ignored: Vec<IgnoredKey>,
}

/// The keys by their ids, and the rules for the tokens of all of them.
pub(super) struct Checks {
    keys: HashMap<Box<str>, Vec<VerifyingKey>>,
    rules: Rules,
}

/// Configures a [`JwtVerifier`]; made by [`JwtVerifier::builder`].
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

    /// By how much clocks may differ, at most an hour. Default: 5 seconds.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.rules.leeway = leeway;
        self
    }

    /// Accepts only access tokens as in RFC 9068: their type (`typ`) is `at+jwt`, and they have the claims `iss`, `exp`,
    /// `aud`, `sub`, `client_id`, `iat` and `jti`. It needs an [issuer](Self::issuer) and an [audience](Self::audience).
    /// Default: the type is `JWT` or missing, and access tokens are refused.
    pub fn access_tokens(mut self) -> Self {
        self.rules.access_tokens = true;
        self
    }

    /// The keys of the JWK Set that are not used; see [`JwtVerifier::ignored_keys`].
    pub fn ignored_keys(&self) -> &[IgnoredKey] {
        &self.ignored
    }

    /// The verifier.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] without keys, for two keys with the same id and algorithm, for a leeway of more than an hour,
    /// and for [access tokens](Self::access_tokens) without issuer or audience.
    pub fn build(self) -> Result<JwtVerifier, Error> {
        let checks = Checks::new(self.keys, self.rules)?;
        Ok(JwtVerifier(Arc::new(Verifier {
            checks,
            ignored: self.ignored,
        })))
    }
}

impl JwtVerifier {
    /// A verifier for tokens that are signed with the counterpart of one of these keys.
    pub fn builder(keys: impl IntoIterator<Item = VerifyingKey>) -> JwtVerifierBuilder {
        JwtVerifierBuilder::new(keys, Rules::default())
    }

    /// The same with the keys of a JWK Set (RFC 7517), such as [`JwtConfig::jwk_set`](super::JwtConfig::jwk_set) makes.
    ///
    /// Keys that cannot be used are left out: the [module](super#keys-of-a-jwk-set) says which, and
    /// [`ignored_keys`](Self::ignored_keys) why.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the text is no JWK Set, or has no key that can be used; then the error says why.
    pub fn from_jwk_set(json: &str) -> Result<JwtVerifierBuilder, Error> {
        let (keys, ignored) = read_set(json)?;
        Ok(JwtVerifierBuilder {
            ignored,
            ..Self::builder(keys)
        })
    }

    /// The keys of the JWK Set that are not used, in the order of the set. Log them: tokens that they signed are refused.
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

    /// What this token says.
    ///
    /// # Errors
    ///
    /// Why it is not to be accepted: [`RefusalReason::Malformed`] or [`RefusalReason::NotVerified`].
    pub fn verify(&self, token: &str) -> Result<VerifiedClaims, RefusalReason> {
        let verified = self.0.checks.verify(token)?;
        let expires_at = self.0.checks.rules.check(&verified.claims)?;
        let all = json(&verified.payload).ok_or(RefusalReason::NotVerified)?;
        let (claims, id) = (verified.claims, verified.token_id);
        Ok(VerifiedClaims::new(claims, expires_at, id, all))
    }
}

/// What is read of a header (RFC 7515 §4.1). Each of these may be there once.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// Whatever the value is.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|IgnoredAny| true)
}

/// A token whose signature is good.
struct Signed {
    claims: Claims,
    payload: Vec<u8>,
    token_id: TokenId,
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
            return error("a verifier needs a key".to_owned());
        }
        Ok(Self { keys: by_id, rules })
    }

    /// Whom a token is of and its handle, if it is signed by one of the keys with the algorithm of that key, and is as the
    /// rules say.
    pub(super) fn identify(&self, token: &str) -> Result<(String, TokenId), RefusalReason> {
        let verified = self.verify(token)?;
        self.rules.check(&verified.claims)?;
        Ok((verified.claims.sub, verified.token_id))
    }

    /// Reads a token (RFC 7515 §5.2) without a look at what its claims are.
    fn verify(&self, token: &str) -> Result<Signed, RefusalReason> {
        if token.len() > MAX_LEN {
            return Err(RefusalReason::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(RefusalReason::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(RefusalReason::Malformed)?;
        // Neither padding nor stray bits after the last octet: there is one spelling.
        let decode = |part: &str| BASE64URL.decode(part).map_err(|_| RefusalReason::Malformed);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        if !is_object(&header) {
            return Err(RefusalReason::Malformed);
        }
        let header: Header<'_> =
            serde_json::from_slice(&header).map_err(|_| RefusalReason::Malformed)?;
        // RFC 7515 §4.1.11: what must be understood, and is not, is refused.
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

/// The handle of a token, from what is signed: header and claims. The signature is left out, because there are two valid
/// ones on P-256 for whoever has one, and a token must not have two handles.
pub(super) fn token_id(message: &str) -> TokenId {
    TokenId::of(message)
}

/// Reads a JSON object (RFC 7515 §5.2, RFC 7519 §7.2); a struct could be read from an array as well.
fn json<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    is_object(text).then(|| serde_json::from_slice(text).ok())?
}

/// Whether a JSON text is an object, if it is any.
fn is_object(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'{')
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
