//! Tokens that are JSON Web Tokens ([RFC 7519]), for teams whose gateways or services want to read them.
//!
//! Sessions stay in the store, and every check asks it: a logout counts at once, limits and lists are the same. But a
//! token that is forged, expired, for somebody else's audience or signed in another way is refused without a store call.
//!
//! ```
//! use std::time::Duration;
//! use tower_bearer_session::{MemoryStore, TokenManager, jwt::{JwtConfig, SigningKey}};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer_session::Error> {
//! # let secret = [7; 32];
//! let key = SigningKey::hs256("2026-11", &secret)?;
//! let config = JwtConfig::new(key)
//!     .issuer("https://login.example.org")
//!     .audience("shop")
//!     .max_lifetime(Duration::from_secs(12 * 3600));
//! let manager: TokenManager = TokenManager::builder(MemoryStore::new()).jwt(config).build()?;
//! let token = manager.set_token("alice", None).await?;
//! assert!(token.expose_secret().starts_with("eyJ"));
//! assert!(manager.check_token(token.expose_secret()).await?.is_some());
//! # Ok(()) }
//! ```
//!
//! # Tokens
//!
//! | claim | content |
//! |---|---|
//! | `sub` | the user id |
//! | `jti` | 16 random bytes, base64url |
//! | `iat` | when the token was minted, by the clock of the service |
//! | `exp` | the absolute end of the session: the [`max_lifetime`](crate::TokenOptions::max_lifetime) of the login, or else [that of the configuration](JwtConfig::max_lifetime) |
//! | `iss`, `aud` | as configured; then they must be there, and right |
//! | `client_id` | of [access tokens](JwtConfig::access_tokens) only |
//!
//! A refresh prolongs the session but cannot change the token, so every session has an absolute end and every token an
//! `exp`. A token without `exp` is never minted and never accepted.
//!
//! The header has `kid`, which a verifier needs to find the key; the key says which algorithm counts, never the token.
//! Tokens with `crit` (RFC 7515 §4.1.11) or of another `typ` are refused, and `nbf` is respected. The type of an
//! [access token](JwtConfig::access_tokens) (RFC 9068) is `at+jwt`, that of all others is `JWT` or missing.
//!
//! [`TokenId`] is the hash of header and claims, without the signature: an ES256 signature has a second spelling that
//! whoever has the token can compute, and it is still the same token.
//!
//! # Rotation of keys
//!
//! First [`accept`](JwtConfig::accept) the new key everywhere, then sign with it everywhere and accept the old one for as
//! long as its tokens live.
//!
//! # Keys of a JWK Set
//!
//! [`JwtVerifier::from_jwk_set`] uses each key that can verify tokens and ignores the others (RFC 7517 §5):
//! [`JwtVerifier::ignored_keys`] tells which and why. A set without any key that can be used is an error.
//!
//! | a key | is |
//! |---|---|
//! | `kty` `EC` with `crv` `P-256` | used for ES256 |
//! | `kty` `OKP` with `crv` `Ed25519` (RFC 8037 §2) | used for EdDSA, which tokens call `EdDSA` or `Ed25519` (RFC 9864) |
//! | `kty` `RSA` of 2048 to 8192 bits | used for RS256 |
//! | of another `kty` or `crv` | ignored |
//! | `kty` `oct`, a shared secret | ignored: every reader of the set could sign |
//! | with private members (`d`, `p`, …) | ignored: every reader of the set can sign |
//! | without `alg`, or with the `alg` of such keys | used |
//! | with any other `alg`, such as `PS256` | ignored (RFC 7517 §4.4) |
//! | without `use`, or with `use` `sig` | used |
//! | with another `use` | ignored (RFC 7517 §4.2) |
//! | with `key_ops` `verify`, alone or with `sign` | used |
//! | with other, repeated or no values in `key_ops` | ignored (RFC 7517 §4.3) |
//! | without `kid`, or with one that is empty or longer than 128 bytes | ignored |
//! | with the `kid` of a key of another type | used: the `alg` of a token says which one counts (RFC 7517 §4.5) |
//! | with `kid` and algorithm of a key before it | ignored |
//! | RSA whose `n` or `e` has leading zero octets, against RFC 7518 §2 | used: the number is the same |
//! | RSA with an even `n` or `e`, with `e` of 1 or of more than 32 bits | ignored |
//! | EC with `x` or `y` of other than 32 octets (RFC 7518 §6.2.1.2), or a point that is not on the curve | ignored |
//! | Ed25519 with `x` of other than 32 octets, or that is no point, or one of small order | ignored |
//! | with a member missing, of another JSON type or not in base64url without padding, such as one with `x5c` only | ignored |
//! | with certificates (`x5c`, `x5u`) or unknown members beside all that | used; they are not looked at |
//! | with two members of the same name | ignored (RFC 7517 §4) |
//! | that is no JSON object | ignored |
//!
//! # Cryptography
//!
//! Keys and signatures are those of [aws-lc-rs]. Nothing is installed for the whole process: whichever provider the
//! program uses for rustls or for another JWT library, and whenever it installs it, is its own affair.
//!
//! [RFC 7519]: https://www.rfc-editor.org/rfc/rfc7519
//! [aws-lc-rs]: https://docs.rs/aws-lc-rs

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::Serialize;
use serde_json::json;

use self::{
    claims::Rules,
    verifier::{Checks, token_id},
};
pub use self::{
    claims::VerifiedClaims,
    jwk::IgnoredKey,
    key::{SigningKey, VerifyingKey},
    verifier::{JwtVerifier, JwtVerifierBuilder},
};
#[cfg(doc)]
use crate::TokenId;
use crate::{
    Error, ErrorKind, RefusalReason, Token,
    token::{ParsedToken, check_user_id},
};

mod claims;
mod crypto;
mod jwk;
mod key;
mod verifier;

/// The longest text that can be a JWT of ours, in bytes.
const MAX_LEN: usize = 4096;

/// How to mint and verify JWTs; for [`TokenManagerBuilder::jwt`](crate::TokenManagerBuilder::jwt).
#[derive(Clone, Debug)]
pub struct JwtConfig {
    signing: Option<SigningKey>,
    others: Vec<VerifyingKey>,
    rules: Rules,
    client_id: Option<String>,
    opaque: bool,
    pub(crate) max_lifetime: Duration,
}

impl JwtConfig {
    /// Mints tokens with this key, and accepts what it signed.
    pub fn new(signing: SigningKey) -> Self {
        Self {
            signing: Some(signing),
            ..Self::verify_only([])
        }
    }

    /// Mints no tokens, and accepts those that were signed with the counterpart of one of these keys: for services that
    /// check sessions but log nobody in. There, logins fail with [`ErrorKind::Config`].
    pub fn verify_only(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        Self {
            signing: None,
            others: keys.into_iter().collect(),
            rules: Rules::default(),
            client_id: None,
            opaque: false,
            max_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }

    /// Accepts tokens that were signed with the counterpart of this key, too.
    #[must_use]
    pub fn accept(mut self, key: VerifyingKey) -> Self {
        self.others.push(key);
        self
    }

    /// Accepts opaque tokens (`tbs1.…`), too, for as long as there are sessions from before the migration.
    #[must_use]
    pub fn accept_opaque(mut self) -> Self {
        self.opaque = true;
        self
    }

    /// The issuer (`iss`) that tokens name and must name. Default: none, and anything goes.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.rules.issuer = Some(issuer.into());
        self
    }

    /// The audience (`aud`) that tokens name and must name. Default: none, and none may be there.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.rules.audience = Some(audience.into());
        self
    }

    /// How long tokens live at most, where the login does not [say so](crate::TokenOptions::max_lifetime). Default: 30 days.
    ///
    /// It is the absolute end of the session (`ends_at`) and the `exp` of its token, so it ends sessions even if they are
    /// refreshed, and a longer ttl is cut to it. Services without a store accept a token until then, whatever logouts there
    /// were.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = lifetime;
        self
    }

    /// Mints access tokens as in RFC 9068 for this client, and accepts only access tokens: their type (`typ`) is `at+jwt`.
    /// It needs an [issuer](Self::issuer) and an [audience](Self::audience). Default: the type is `JWT`.
    ///
    /// For services that expect that profile. Sessions whose tokens were minted without this are not accepted any more.
    #[must_use]
    pub fn access_tokens(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self.rules.access_tokens = true;
        self
    }

    /// By how much the clocks of services may differ, at most an hour. Default: 5 seconds.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.rules.leeway = leeway;
        self
    }

    /// The public keys, as a JWK Set (RFC 7517 §5) in JSON: what to serve at `/.well-known/jwks.json`, with the media type
    /// `application/jwk-set+json`. Shared secrets are not in it.
    pub fn jwk_set(&self) -> String {
        let keys: Vec<_> = self.keys().filter_map(jwk::write).collect();
        json!({ "keys": keys }).to_string()
    }

    /// A verifier of the same tokens for services without a store. It has the [keys](Self::accept) that this has: give a
    /// service elsewhere a [`JwtVerifier`] with public keys only.
    ///
    /// # Errors
    ///
    /// Those of [`JwtVerifierBuilder::build`].
    pub fn verifier(&self) -> Result<JwtVerifier, Error> {
        JwtVerifierBuilder::new(self.keys().cloned(), self.rules.clone()).build()
    }

    fn keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        let own = self.signing.iter().map(SigningKey::verifying_key);
        own.chain(&self.others)
    }

    /// What a manager needs.
    pub(crate) fn build(self) -> Result<JwtTokens, Error> {
        let checks = Checks::new(self.keys().cloned(), self.rules.clone())?;
        let minter = self.signing.map(|key| {
            let public = key.verifying_key();
            let header = json!({
                "typ": self.rules.token_type(), "alg": public.algorithm().name(), "kid": public.id(),
            });
            Minter {
                header: BASE64URL.encode(header.to_string()),
                client_id: self.client_id,
                key,
            }
        });
        Ok(JwtTokens {
            minter,
            checks,
            opaque: self.opaque,
        })
    }
}

/// Mints and reads JWTs.
pub(crate) struct JwtTokens {
    minter: Option<Minter>,
    checks: Checks,
    opaque: bool,
}

struct Minter {
    key: SigningKey,
    /// Encoded.
    header: String,
    client_id: Option<String>,
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    jti: String,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
}

impl JwtTokens {
    pub(crate) fn mint(&self, user_id: &str, lifetime: Duration) -> Result<Token, Error> {
        check_user_id(user_id)?;
        let Some(minter) = &self.minter else {
            let message = "there is no key to sign tokens with: this manager only verifies them";
            return Err(Error::new(ErrorKind::Config, message));
        };
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(Error::random)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let rules = self.checks.rules();
        let claims = NewClaims {
            sub: user_id,
            jti: BASE64URL.encode(random),
            iat: now.as_secs(),
            // Rounded up: the store knows the end to the millisecond.
            exp: (now + lifetime).as_secs() + 1,
            iss: rules.issuer.as_deref(),
            aud: rules.audience.as_deref(),
            client_id: minter.client_id.as_deref(),
        };
        let unsigned = |error| {
            let message = "the token could not be signed";
            Error::with_source(ErrorKind::Random, message, error)
        };
        let claims = serde_json::to_vec(&claims).map_err(|error| {
            let message = "the claims of the token cannot be written as JSON";
            Error::with_source(ErrorKind::Serialize, message, error)
        })?;
        let mut text = format!("{}.{}", minter.header, BASE64URL.encode(claims));
        let id = token_id(&text);
        let signature = minter.key.sign(text.as_bytes()).map_err(unsigned)?;
        text.push('.');
        BASE64URL.encode_string(signature, &mut text);
        if text.len() > MAX_LEN {
            let message = format!(
                "the token of this user would have {} bytes; at most {MAX_LEN} are allowed",
                text.len()
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Token::with_id(text, id))
    }

    pub(crate) fn parse(&self, text: &str) -> Result<ParsedToken, RefusalReason> {
        if self.opaque
            && let Some(token) = ParsedToken::parse(text)
        {
            return Ok(token);
        }
        let (user_id, id) = self.checks.identify(text)?;
        Ok(ParsedToken {
            user_id: user_id.into(),
            id,
        })
    }
}
