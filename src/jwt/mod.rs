//! JSON Web Tokens ([RFC 7519]) as session tokens, for gateways and services that want to read them.
//!
//! Sessions stay in the store, and every check queries it: a logout takes effect at once, and limits and lists work as
//! with opaque tokens. A token that is forged, expired, for another audience or signed with another algorithm is
//! refused without a store call.
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
//! | `iat` | when the token was issued, by the clock of the service |
//! | `exp` | the absolute end of the session, by the [`max_lifetime`](crate::TokenOptions::max_lifetime) of the login, or else [that of the configuration](JwtConfig::max_lifetime) |
//! | `auth_time` | when the user last proved who they are, in whole seconds (RFC 9068 §2.2.1) |
//! | `scope` | the [scopes](crate::Scopes) of the session, with spaces between them (RFC 9068 §2.2.3, RFC 8693 §4.2); not without any |
//! | `sid` | the session, by its [`TokenId`]; only in a token that has [replaced](crate::TokenManager::replace_token) another one |
//! | `iss`, `aud` | as configured; a configured claim must be present and match |
//! | `client_id` | only in [access tokens](JwtConfig::access_tokens) |
//!
//! A refresh prolongs the session but cannot change the token, so every session has an absolute end and every token an
//! `exp`. A token without `exp` is never issued and never accepted.
//!
//! The header has `kid`, which a verifier needs to find the key. The key determines the algorithm, the token never
//! does. Tokens with `crit` (RFC 7515 §4.1.11) or another `typ` are refused, and `nbf` is respected. The `typ` of an
//! [access token](JwtConfig::access_tokens) (RFC 9068) is `at+jwt`; that of all other tokens is `JWT` or missing.
//!
//! [`TokenId`] is the hash of header and claims, without the signature: whoever has an ES256 token can compute a second
//! valid signature, which must not make it another token.
//!
//! # Claims of your own
//!
//! [`JwtConfig::claims`] adds claims, which [`VerifiedClaims::other`] returns. It cannot set `iss`, `sub`, `aud`,
//! `exp`, `nbf`, `iat`, `jti`, `sid`, `client_id`, `scope` and `auth_time`, in whatever case, with which the crate
//! decides what a token is good for. A token has at most 4096 bytes, its claims in base64url and its signature
//! included.
//!
//! A token that [replaces](crate::TokenManager::replace_token) another one has the claims of the session as it is then.
//! In a service without a store, the scopes and the `auth_time` are those of the token: a replaced token keeps its own
//! until it expires.
//!
//! # Rotation of keys
//!
//! First [`accept`](JwtConfig::accept) the new key everywhere. Then sign with it everywhere, and accept the old key
//! until its tokens have expired.
//!
//! # Keys of a JWK Set
//!
//! [`JwtVerifier::from_jwk_set`] uses each key that can verify tokens and ignores the others (RFC 7517 §5).
//! [`JwtVerifier::ignored_keys`] lists the ignored keys and the reasons. A set without a usable key is an error.
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
//! | with the `kid` of a key of another type | used: the `alg` of a token selects the key (RFC 7517 §4.5) |
//! | with the `kid` and algorithm of an earlier key | ignored |
//! | RSA whose `n` or `e` has leading zero octets, against RFC 7518 §2 | used: the number is the same |
//! | RSA with an even `n` or `e`, or an `e` that is 1 or longer than 32 bits | ignored |
//! | EC whose `x` or `y` is not 32 octets long (RFC 7518 §6.2.1.2), or whose point is not on the curve | ignored |
//! | Ed25519 whose `x` is not 32 octets long, not a point, or a point of small order | ignored |
//! | with a member that is missing (as in a key with `x5c` only), of another JSON type, or not base64url without padding | ignored |
//! | with additional certificates (`x5c`, `x5u`) or unknown members | used; these members are not read |
//! | with two members of the same name | ignored (RFC 7517 §4) |
//! | that is not a JSON object | ignored |
//!
//! # Cryptography
//!
//! [aws-lc-rs] handles keys and signatures. This module installs nothing for the whole process: the program may use and
//! install any provider for rustls or another JWT library, at any time.
//!
//! [RFC 7519]: https://www.rfc-editor.org/rfc/rfc7519
//! [aws-lc-rs]: https://docs.rs/aws-lc-rs

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use self::{claims::Rules, session::OwnClaims, verifier::Checks};
pub use self::{
    claims::VerifiedClaims,
    jwk::IgnoredKey,
    key::{SigningKey, VerifyingKey},
    session::JwtSession,
    verifier::{JwtVerifier, JwtVerifierBuilder},
};
pub(crate) use self::{session::JwtTimes, tokens::JwtTokens};
use crate::Error;
#[cfg(doc)]
use crate::{ErrorKind, TokenId};

mod claims;
mod crypto;
mod jwk;
mod key;
mod session;
mod tokens;
mod verifier;

/// The longest accepted JWT, in bytes.
const MAX_LEN: usize = 4096;

/// The configuration of JWTs as session tokens; for [`TokenManagerBuilder::jwt`](crate::TokenManagerBuilder::jwt).
#[derive(Clone, Debug)]
pub struct JwtConfig {
    signing: Option<SigningKey>,
    others: Vec<VerifyingKey>,
    rules: Rules,
    client_id: Option<String>,
    own_claims: Option<OwnClaims>,
    opaque: bool,
    pub(crate) max_lifetime: Duration,
}

impl JwtConfig {
    /// Issues tokens that are signed with this key, and accepts them.
    pub fn new(signing: SigningKey) -> Self {
        Self {
            signing: Some(signing),
            ..Self::verify_only([])
        }
    }

    /// Issues no tokens, and accepts those signed with the counterpart of one of these keys.
    ///
    /// This is for services that check sessions but log nobody in: logins fail with [`ErrorKind::Config`].
    pub fn verify_only(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        Self {
            signing: None,
            others: keys.into_iter().collect(),
            rules: Rules::default(),
            client_id: None,
            own_claims: None,
            opaque: false,
            max_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }

    /// Also accepts tokens that were signed with the counterpart of this key.
    #[must_use]
    pub fn accept(mut self, key: VerifyingKey) -> Self {
        self.others.push(key);
        self
    }

    /// Also accepts opaque tokens (`tbs1.…`), for as long as there are sessions from before the migration.
    #[must_use]
    pub fn accept_opaque(mut self) -> Self {
        self.opaque = true;
        self
    }

    /// Sets the issuer (`iss`) of issued tokens, which accepted tokens must have. Default: none, and any is accepted.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.rules.issuer = Some(issuer.into());
        self
    }

    /// Sets the audience (`aud`) of issued tokens, which accepted tokens must name. Default: none, and tokens with an
    /// audience are refused.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.rules.audience = Some(audience.into());
        self
    }

    /// Sets the maximum lifetime of sessions and tokens for logins that do not
    /// [set their own](crate::TokenOptions::max_lifetime). Default: 30 days.
    ///
    /// It determines the absolute end of the session (`ends_at`) and the `exp` of its token: refreshed sessions end
    /// then as well, and a longer ttl is cut. Services without a store accept the token until then, in spite of
    /// logouts.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = lifetime;
        self
    }

    /// Issues access tokens for this client (RFC 9068), and accepts only access tokens.
    ///
    /// Their type (`typ`) is `at+jwt`; the default type is `JWT`. Access tokens need an [issuer](Self::issuer) and an
    /// [audience](Self::audience). This is for services that expect that profile. Tokens issued without this setting
    /// are no longer accepted.
    #[must_use]
    pub fn access_tokens(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self.rules.access_tokens = true;
        self
    }

    /// Adds claims of your own to each token, in place of those of an earlier call. Default: none.
    ///
    /// The function gets the [session](JwtSession) that the token is for, and returns anything that serializes as a
    /// JSON object: a struct, a map, or a `serde_json::json!`. It runs at each login and
    /// [replacement](crate::TokenManager::replace_token), before the write. If somebody changes the metadata during a
    /// replacement, it runs again, so that the claims match the stored metadata. Later changes do not show in the
    /// token. The function must be quick, and must not block.
    ///
    /// Claims are signed but not encrypted: everybody who has a token can read them.
    ///
    /// ```
    /// use serde_json::json;
    /// use tower_bearer_session::{
    ///     MemoryStore, TokenManager, TokenOptions, jwt::{JwtConfig, SigningKey},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer_session::Error> {
    /// # let key = SigningKey::hs256("2026-11", &[7; 32])?;
    /// #[derive(serde::Deserialize)]
    /// struct Device {
    ///     tenant: String,
    /// }
    ///
    /// let config = JwtConfig::new(key).claims(|session| {
    ///     let device: Device = session.metadata_as()?;
    ///     Ok(json!({ "tenant": device.tenant }))
    /// });
    /// let verifier = config.verifier()?; // of a service without a store
    /// let manager: TokenManager = TokenManager::builder(MemoryStore::new()).jwt(config).build()?;
    /// let options = TokenOptions::new().metadata("tenant", "acme").scopes(["orders:write"]);
    /// let token = manager.set_token_with("alice", options).await?.token;
    ///
    /// let claims = verifier.verify(token.expose_secret()).expect("a valid token");
    /// assert_eq!(claims.other()["tenant"], "acme");
    /// assert!(claims.scopes().contains("orders:write"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// If no token can be minted, the login or replacement fails, and nothing is stored: with the error of the
    /// function; with [`ErrorKind::Config`] for a claim that is [reserved](self#claims-of-your-own); with
    /// [`ErrorKind::Serialize`] for what is not a JSON object; and with [`ErrorKind::InvalidInput`] if the token would
    /// be longer than 4096 bytes.
    #[must_use]
    pub fn claims<C: Serialize>(
        mut self,
        claims: impl Fn(&JwtSession<'_>) -> Result<C, Error> + Send + Sync + 'static,
    ) -> Self {
        self.own_claims = Some(OwnClaims::new(claims));
        self
    }

    /// Sets by how much the clocks of services may differ, at most an hour. Default: 5 seconds.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.rules.leeway = leeway;
        self
    }

    /// The public keys as a JWK Set (RFC 7517 §5) in JSON.
    ///
    /// Serve it at `/.well-known/jwks.json` with the media type `application/jwk-set+json`. It contains no shared
    /// secrets.
    pub fn jwk_set(&self) -> String {
        let keys: Vec<_> = self.keys().filter_map(jwk::write).collect();
        json!({ "keys": keys }).to_string()
    }

    /// Creates an offline verifier of the same tokens, for services without a store.
    ///
    /// It has all [keys](Self::accept) of this configuration, shared secrets included. For a service elsewhere, create
    /// a [`JwtVerifier`] with public keys only.
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

    /// Builds the issuer and reader of tokens for a manager.
    pub(crate) fn build(self) -> Result<JwtTokens, Error> {
        let checks = Checks::new(self.keys().cloned(), self.rules.clone())?;
        let (key, client_id, own_claims) = (self.signing, self.client_id, self.own_claims);
        Ok(JwtTokens::new(
            checks,
            key,
            client_id,
            own_claims,
            self.opaque,
        ))
    }
}
