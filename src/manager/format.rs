use std::time::Duration;

use super::Refusal;
use crate::{Error, Token, token::ParsedToken};

/// What tokens look like.
pub(super) enum Format {
    /// `tbs1.…`
    Opaque,
    #[cfg(feature = "jwt")]
    Jwt(Box<crate::jwt::JwtTokens>),
}

impl Format {
    /// A new token; `max_lifetime` is when no refresh can prolong its session any more.
    #[cfg_attr(not(feature = "jwt"), expect(unused_variables))]
    pub(super) fn mint(
        &self,
        user_id: &str,
        max_lifetime: Option<Duration>,
    ) -> Result<Token, Error> {
        match self {
            Self::Opaque => Token::mint(user_id),
            #[cfg(feature = "jwt")]
            Self::Jwt(tokens) => tokens.mint(user_id, max_lifetime),
        }
    }

    /// Reads a token offline.
    pub(super) fn parse(&self, text: &str) -> Result<ParsedToken, Refusal> {
        match self {
            Self::Opaque => ParsedToken::parse(text).ok_or(Refusal::Malformed),
            #[cfg(feature = "jwt")]
            Self::Jwt(tokens) => tokens.parse(text),
        }
    }
}
