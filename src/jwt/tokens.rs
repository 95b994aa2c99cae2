//! Issuing and reading JWTs.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    JwtSession, MAX_LEN, SigningKey,
    session::OwnClaims,
    verifier::{Checks, token_id},
};
use crate::{
    Error, ErrorKind, RefusalReason, Scopes, Token, TokenId,
    token::{ParsedToken, TokenIds, check_user_id},
};

/// How much longer a token is that names its session, in base64url: `,"sid":"…"` with 22 characters.
const SID_LEN: usize = 42;

/// Issues and reads JWTs.
pub(crate) struct JwtTokens {
    minter: Option<Minter>,
    checks: Checks,
    opaque: bool,
}

struct Minter {
    key: SigningKey,
    /// In base64url.
    header: String,
    client_id: Option<String>,
    own_claims: Option<OwnClaims>,
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    jti: String,
    iat: u64,
    exp: u64,
    auth_time: u64,
    #[serde(skip_serializing_if = "Scopes::is_empty")]
    scope: &'a Scopes,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a TokenId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(flatten)]
    own: Map<String, Value>,
}

impl JwtTokens {
    /// Issues tokens that are signed with this key, if there is one, for this client and with these claims; reads those
    /// that pass the checks, and opaque ones if wanted.
    pub(super) fn new(
        checks: Checks,
        key: Option<SigningKey>,
        client_id: Option<String>,
        own_claims: Option<OwnClaims>,
        opaque: bool,
    ) -> Self {
        let minter = key.map(|key| {
            let public = key.verifying_key();
            let header = json!({
                "typ": checks.rules().token_type(), "alg": public.algorithm().name(), "kid": public.id(),
            });
            Minter {
                header: BASE64URL.encode(header.to_string()),
                client_id,
                own_claims,
                key,
            }
        });
        Self {
            minter,
            checks,
            opaque,
        }
    }

    /// Issues a token for a session: the first one, or another one of the session with this id.
    pub(crate) fn mint(
        &self,
        session: &JwtSession<'_>,
        id: Option<&TokenId>,
    ) -> Result<Token, Error> {
        check_user_id(session.user_id())?;
        let minter = self.minter()?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(Error::random)?;
        let own = minter.own_claims.as_ref().map(|own| own.of(session));
        let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let rules = self.checks.rules();
        let claims = NewClaims {
            sub: session.user_id(),
            jti: BASE64URL.encode(random),
            iat: since_epoch(session.issued_at()).as_secs(),
            // Rounded up, because the store keeps the end to the millisecond.
            exp: since_epoch(session.ends_at()).as_secs() + 1,
            // Rounded down: a login counts as older rather than as newer.
            auth_time: since_epoch(session.authenticated_at()).as_secs(),
            scope: session.scopes(),
            sid: id,
            iss: rules.issuer.as_deref(),
            aud: rules.audience.as_deref(),
            client_id: minter.client_id.as_deref(),
            own: own.transpose()?.unwrap_or_default(),
        };
        let mut text = format!("{}.{}", minter.header, BASE64URL.encode(encode(&claims)?));
        let ids = TokenIds::new(token_id(&text), id);
        let signature = minter.key.sign(text.as_bytes()).map_err(|error| {
            let message = "the token could not be signed";
            Error::with_source(ErrorKind::Random, message, error)
        })?;
        text.push('.');
        BASE64URL.encode_string(signature, &mut text);
        // A first token leaves room for the session that those after it name.
        let len = text.len() + id.map_or(SID_LEN, |_| 0);
        if len > MAX_LEN {
            let message = format!(
                "with its claims, the token of this user would have {len} bytes; at most {MAX_LEN} are allowed"
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Token::with_ids(text, ids))
    }

    /// Whether the claims of tokens may depend on the metadata of their sessions, and not only on the scopes.
    pub(crate) fn has_own_claims(&self) -> bool {
        let minter = self.minter.as_ref();
        minter.is_some_and(|minter| minter.own_claims.is_some())
    }

    /// Refuses to issue tokens of any format if there is no key to sign them.
    pub(crate) fn check_minter(&self) -> Result<(), Error> {
        self.minter().map(drop)
    }

    fn minter(&self) -> Result<&Minter, Error> {
        self.minter.as_ref().ok_or_else(|| {
            let message = "this manager only verifies tokens: it has no key to sign them";
            Error::new(ErrorKind::Config, message)
        })
    }

    pub(crate) fn parse(&self, text: &str) -> Result<ParsedToken, RefusalReason> {
        if self.opaque
            && let Some(token) = ParsedToken::parse(text)
        {
            return Ok(token);
        }
        let (user_id, ids) = self.checks.identify(text)?;
        Ok(ParsedToken {
            user_id: user_id.into(),
            ids,
        })
    }
}

/// The JSON of claims, if verifiers can read it back.
fn encode(claims: &NewClaims<'_>) -> Result<Vec<u8>, Error> {
    let json = serde_json::to_vec(claims).map_err(|error| {
        let message = "the claims of the token cannot be serialized as JSON";
        Error::with_source(ErrorKind::Serialize, message, error)
    })?;
    if !claims.own.is_empty() && serde_json::from_slice::<Map<String, Value>>(&json).is_err() {
        let message = "the claims of `JwtConfig::claims` cannot be read back from JSON: they are nested too deeply";
        return Err(Error::new(ErrorKind::Serialize, message));
    }
    Ok(json)
}
