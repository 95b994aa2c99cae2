use std::time::{Duration, SystemTime};

#[cfg(feature = "jwt")]
use super::types::check_ttl;
use crate::{Error, RefusalReason, Token, TokenId, token::ParsedToken};

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

    /// A new token. A JWT expires when its session cannot be prolonged any more, so its session gets a `max_lifetime`
    /// if it has none.
    #[cfg_attr(not(feature = "jwt"), expect(unused_variables))]
    pub(super) fn mint(
        &self,
        user_id: &str,
        lifetime: &mut Option<Duration>,
    ) -> Result<Token, Error> {
        match self {
            Self::Opaque => Token::mint(user_id, None),
            #[cfg(feature = "jwt")]
            Self::Jwt {
                tokens,
                max_lifetime,
            } => {
                let lifetime = *lifetime.get_or_insert(*max_lifetime);
                tokens.mint(user_id, SystemTime::now() + lifetime, None)
            }
        }
    }

    /// Another token of a session. It is a JWT if the session has an absolute end, when the JWT can expire; if not, the
    /// session began with an opaque token, before JWTs were introduced.
    pub(super) fn mint_another(
        &self,
        user_id: &str,
        session: &TokenId,
        ends_at: Option<SystemTime>,
    ) -> Result<Token, Error> {
        match (self, ends_at) {
            #[cfg(feature = "jwt")]
            (Self::Jwt { tokens, .. }, Some(ends_at)) => {
                tokens.mint(user_id, ends_at, Some(session))
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
