//! Tokens that are JSON Web Tokens ([RFC 7519]), for teams whose gateways or services want to read them.
//!
//! Sessions stay in the store, and every check asks it: a logout counts at once, limits and lists are the same, and
//! [`TokenId`] is the hash of the token's text, as ever. But a token that is forged, expired, for somebody
//! else's audience or signed in another way is refused without a store call.
//!
//! ```
//! use tower_bearer_session::{MemoryStore, TokenManager, jwt::{JwtConfig, SigningKey}};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer_session::Error> {
//! # let secret = [7; 32];
//! let key = SigningKey::hs256("2026-11", &secret)?;
//! let manager: TokenManager = TokenManager::builder(MemoryStore::new())
//!     .jwt(JwtConfig::new(key).issuer("https://login.example.org").audience("shop"))
//!     .build()?;
//! let token = manager.set_token("alice", None).await?;
//! assert!(token.expose_secret().starts_with("eyJ"));
//! assert!(manager.check_token(token.expose_secret()).await?.is_some());
//! # Ok(()) }
//! ```
//!
//! | claim | content |
//! |---|---|
//! | `sub` | the user id |
//! | `jti` | 16 random bytes, base64url |
//! | `iat` | when it was minted, by the clock of the service |
//! | `exp` | the [absolute end](crate::TokenOptions::max_lifetime); without one there is no `exp`, because a refresh may prolong the session at any time |
//! | `iss`, `aud` | as configured; then they must be there, and right |
//!
//! The header has `kid`, which a verifier needs to find the key; the key says which algorithm counts, never the token. Tokens
//! with `crit` or of another `typ` are refused, `nbf` is respected.
//!
//! **To rotate keys**, first [`accept`](JwtConfig::accept) the new one everywhere, then sign with it everywhere and accept the
//! old one for as long as its tokens live.
//!
//! [RFC 7519]: https://www.rfc-editor.org/rfc/rfc7519

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use jsonwebtoken::{Header, encode};
use serde::Serialize;
use serde_json::json;

use self::verifier::{Checks, Rules};
pub use self::{
    key::{SigningKey, VerifyingKey},
    verifier::{JwtVerifier, JwtVerifierBuilder, VerifiedToken},
};
use crate::{
    Error, ErrorKind, Refusal, Token, TokenId,
    token::{ParsedToken, check_user_id},
};

mod key;
mod verifier;

/// The longest text that can be a JWT of ours, in bytes.
const MAX_LEN: usize = 4096;

/// How to mint and verify JWTs; for [`TokenManagerBuilder::jwt`](crate::TokenManagerBuilder::jwt).
#[derive(Clone, Debug)]
pub struct JwtConfig {
    signing: SigningKey,
    others: Vec<VerifyingKey>,
    rules: Rules,
    opaque: bool,
}

impl JwtConfig {
    /// Mints tokens with this key, and accepts what it signed.
    pub fn new(signing: SigningKey) -> Self {
        Self {
            signing,
            others: Vec::new(),
            rules: Rules::default(),
            opaque: false,
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

    /// By how much the clocks of services may differ, at most an hour; whole seconds count. Default: 5 seconds.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.rules.leeway = leeway;
        self
    }

    /// The public keys, as a JWK Set (RFC 7517 §5) in JSON: what to serve at `/.well-known/jwks.json`, with the media type
    /// `application/jwk-set+json`. Shared secrets are not in it.
    pub fn jwk_set(&self) -> String {
        let keys: Vec<_> = self.keys().filter_map(|key| key.jwk.as_ref()).collect();
        json!({ "keys": keys }).to_string()
    }

    /// A verifier of the same tokens for services without a store. It has the [keys](Self::accept) that this has: give a
    /// service elsewhere a [`JwtVerifier`] with public keys only.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for two keys with the same id, and for a leeway of more than an hour.
    pub fn verifier(&self) -> Result<JwtVerifier, Error> {
        JwtVerifierBuilder::new(self.keys().cloned(), self.rules.clone()).build()
    }

    fn keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        std::iter::once(self.signing.verifying_key()).chain(&self.others)
    }

    /// What a manager needs.
    pub(crate) fn build(self) -> Result<JwtTokens, Error> {
        let keys: Vec<_> = self.keys().cloned().collect();
        let checks = Checks::new(&keys, &self.rules, false)?;
        let public = self.signing.verifying_key();
        let mut header = Header::new(public.algorithm);
        header.kid = Some(public.id().to_owned());
        Ok(JwtTokens {
            header,
            checks,
            config: self,
        })
    }
}

/// Mints and reads JWTs.
pub(crate) struct JwtTokens {
    header: Header,
    checks: Checks,
    config: JwtConfig,
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    jti: String,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

impl JwtTokens {
    pub(crate) fn mint(
        &self,
        user_id: &str,
        max_lifetime: Option<Duration>,
    ) -> Result<Token, Error> {
        check_user_id(user_id)?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(Error::random)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let rules = &self.config.rules;
        let claims = NewClaims {
            sub: user_id,
            jti: BASE64URL.encode(random),
            iat: now.as_secs(),
            // Rounded up: the store knows the end to the millisecond.
            exp: max_lifetime.map(|lifetime| (now + lifetime).as_secs() + 1),
            iss: rules.issuer.as_deref(),
            aud: rules.audience.as_deref(),
        };
        let text = encode(&self.header, &claims, self.config.signing.key());
        let text = text.map_err(|error| {
            let message = "the token could not be signed";
            Error::with_source(ErrorKind::Random, message, error)
        })?;
        if text.len() > MAX_LEN {
            let message = format!(
                "the token of this user would have {} bytes; at most {MAX_LEN} are allowed",
                text.len()
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Token::new(text))
    }

    pub(crate) fn parse(&self, text: &str) -> Result<ParsedToken, Refusal> {
        if self.config.opaque
            && let Some(token) = ParsedToken::parse(text)
        {
            return Ok(token);
        }
        let claims = self.checks.verify(text)?;
        Ok(ParsedToken {
            user_id: claims.sub.into(),
            id: TokenId::of(text),
        })
    }
}
