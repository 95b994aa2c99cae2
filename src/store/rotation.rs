use std::time::{Duration, SystemTime};

#[cfg(doc)]
use super::SessionChange;
use crate::TokenId;

/// The tokens of a session whose first token has been replaced.
///
/// The replaced tokens are kept to detect their reuse (RFC 9700 §4.14.2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotation {
    /// The current token.
    pub current: TokenId,
    /// The tokens that were replaced last, the latest first; at most [`Rotation::MAX_REPLACED`].
    pub replaced: Vec<ReplacedToken>,
}

/// A token of a session that another one has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplacedToken {
    /// The token.
    pub token_id: TokenId,
    /// Until when the token can still be used, by the store's clock.
    pub usable_until: SystemTime,
}

/// A token that replaces the current one of a session, for a [`SessionChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewToken {
    /// The id of the new token, which the session has never had before. A replaced token becomes the current one again
    /// only to undo its replacement, if nobody has the token that replaced it.
    pub token_id: TokenId,
    /// For how long the replaced token can still be used; at most [`MAX_TTL`](crate::store::MAX_TTL), and zero for not
    /// at all. It ends early if the session [forgets](Rotation::MAX_REPLACED) the token.
    pub grace: Duration,
}

/// What a token is to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    /// The session's current token.
    Current,
    /// A replaced token in its [grace](NewToken::grace).
    InGrace,
    /// A replaced token past its grace. Whoever presents it may have stolen it, or may be the one from whom it was
    /// stolen.
    Reused,
    /// A token that the session has never had, or has [forgotten](Rotation::MAX_REPLACED).
    Unknown,
}

impl NewToken {
    /// A new token whose predecessor can be used for `grace`.
    pub fn new(token_id: TokenId, grace: Duration) -> Self {
        Self { token_id, grace }
    }
}

impl Rotation {
    /// The maximum number of replaced tokens that a session keeps. It forgets older ones, whether or not their grace is
    /// over: these are [unknown](TokenStatus::Unknown), except the first one, whose id is that of the session, which is
    /// [reused](TokenStatus::Reused).
    pub const MAX_REPLACED: usize = 16;

    /// The rotation of a session that has its first token.
    pub fn of(session_id: TokenId) -> Self {
        Self {
            current: session_id,
            replaced: Vec::new(),
        }
    }

    /// Replaces the current token at `now`, by the store's clock.
    pub fn replace(&mut self, new: &NewToken, now: SystemTime) {
        self.replaced.truncate(Self::MAX_REPLACED - 1);
        self.replaced.insert(
            0,
            ReplacedToken {
                token_id: self.current,
                usable_until: now + new.grace,
            },
        );
        self.current = new.token_id;
    }

    /// What a token is to the session at `now`, by the store's clock.
    pub(super) fn status(
        &self,
        session_id: &TokenId,
        token_id: &TokenId,
        now: SystemTime,
    ) -> TokenStatus {
        if *token_id == self.current {
            return TokenStatus::Current;
        }
        let replaced = self.replaced.iter();
        match replaced
            .copied()
            .find(|replaced| replaced.token_id == *token_id)
        {
            Some(replaced) if now < replaced.usable_until => TokenStatus::InGrace,
            Some(_) => TokenStatus::Reused,
            // The first token has the id of its session.
            None if token_id == session_id => TokenStatus::Reused,
            None => TokenStatus::Unknown,
        }
    }
}

impl ReplacedToken {
    /// A replaced token that can be used until then.
    pub fn new(token_id: TokenId, usable_until: SystemTime) -> Self {
        Self {
            token_id,
            usable_until,
        }
    }
}
