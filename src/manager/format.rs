#[cfg(feature = "jwt")]
use std::time::{Duration, SystemTime};

#[cfg(feature = "jwt")]
use super::{metadata, types::check_ttl};
#[cfg(feature = "jwt")]
use crate::jwt::{JwtSession, JwtTimes};
use crate::{
    Error, RefusalReason, Token, TokenId,
    store::{NewSession, SessionChange, SessionRecord},
    token::ParsedToken,
};

/// The format of the issued tokens.
pub(super) enum Format {
    /// `tbs1.…`
    Opaque,
    #[cfg(feature = "jwt")]
    Jwt {
        tokens: Box<crate::jwt::JwtTokens>,
        /// The maximum lifetime of sessions whose login sets none.
        max_lifetime: Duration,
    },
}

impl Format {
    #[cfg(feature = "jwt")]
    pub(super) fn jwt(config: crate::jwt::JwtConfig) -> Result<Self, Error> {
        let max_lifetime = check_ttl(config.max_lifetime).map_err(|error| {
            let message = format!("max_lifetime of JWTs: {error}");
            Error::new(crate::ErrorKind::Config, message)
        })?;
        Ok(Self::Jwt {
            tokens: Box::new(config.build()?),
            max_lifetime,
        })
    }

    /// The first token of a session. A JWT expires when its session cannot be prolonged any more, so the session gets a
    /// `max_lifetime` if it has none.
    #[cfg_attr(not(feature = "jwt"), expect(unused_variables))]
    pub(super) fn mint(&self, user_id: &str, new: &mut NewSession) -> Result<Token, Error> {
        match self {
            Self::Opaque => Token::mint(user_id, None),
            #[cfg(feature = "jwt")]
            Self::Jwt {
                tokens,
                max_lifetime,
            } => {
                let (now, lifetime) = (
                    SystemTime::now(),
                    *new.max_lifetime.get_or_insert(*max_lifetime),
                );
                let times = JwtTimes {
                    issued_at: now,
                    created_at: now,
                    authenticated_at: now,
                    ends_at: now + lifetime,
                };
                tokens.mint(&jwt_session(user_id, new.metadata.as_deref(), times), None)
            }
        }
    }

    /// Another token for a session that is about to change from this record, and which then has the claims of the
    /// token. It is a JWT if the session has an absolute end, when the JWT can expire; if not, the session began with
    /// an opaque token, before JWTs were introduced.
    #[cfg_attr(not(feature = "jwt"), expect(unused_variables))]
    pub(super) fn mint_another(
        &self,
        user_id: &str,
        session: &TokenId,
        record: &SessionRecord,
        change: &mut SessionChange,
    ) -> Result<Token, Error> {
        match (self, record.ends_at) {
            #[cfg(feature = "jwt")]
            (Self::Jwt { tokens, .. }, Some(ends_at)) => {
                let now = SystemTime::now();
                let times = JwtTimes {
                    issued_at: now,
                    created_at: record.created_at,
                    authenticated_at: match change.authenticated {
                        true => now,
                        false => record.authenticated_at,
                    },
                    ends_at,
                };
                // Scopes only change with the token, on which the change depends anyway.
                if tokens.has_own_claims() && change.if_metadata.is_none() {
                    change.if_metadata = Some(record.metadata());
                }
                let metadata = change.metadata.as_ref().or(record.metadata.as_ref());
                let minted_for = jwt_session(user_id, metadata.map(|bytes| &**bytes), times);
                tokens.mint(&minted_for, Some(session))
            }
            #[cfg(feature = "jwt")]
            (Self::Jwt { tokens, .. }, None) => {
                tokens.check_minter()?;
                Token::mint(user_id, Some(session))
            }
            (Self::Opaque, _) => Token::mint(user_id, Some(session)),
        }
    }

    /// Parses a token without a store call.
    pub(super) fn parse(&self, text: &str) -> Result<ParsedToken, RefusalReason> {
        match self {
            Self::Opaque => ParsedToken::parse(text).ok_or(RefusalReason::Malformed),
            #[cfg(feature = "jwt")]
            Self::Jwt { tokens, .. } => tokens.parse(text),
        }
    }
}

/// A session with these metadata, as claims are decided by it.
#[cfg(feature = "jwt")]
fn jwt_session<'a>(user_id: &'a str, metadata: Option<&[u8]>, times: JwtTimes) -> JwtSession<'a> {
    let (entries, scopes) = (metadata::entries(metadata), metadata::scopes(metadata));
    JwtSession::new(user_id, entries, scopes, times)
}
