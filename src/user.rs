use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::TokenId;

/// An authenticated user: the id, the detail from the user loader, and the state of the token.
///
/// Cloning is cheap for any `D`, because clones share the detail. In axum handlers it is an extractor.
pub struct User<D = serde_json::Value> {
    id: Arc<str>,
    detail: Option<Arc<D>>,
    token: Option<UserToken>,
}

/// What a user knows about the token that was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserToken {
    pub(crate) session: TokenId,
    pub(crate) remaining: Duration,
    pub(crate) expires_at: SystemTime,
}

impl<D> User<D> {
    #[inline]
    pub(crate) fn new(id: Arc<str>, detail: Option<Arc<D>>, token: Option<UserToken>) -> Self {
        Self { id, detail, token }
    }

    /// The id, in a form that can be shared.
    pub(crate) fn shared_id(&self) -> &Arc<str> {
        &self.id
    }

    /// The user id that the token was issued for.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The user's detail, from the user loader or its cache.
    ///
    /// A manager keeps some decoded details, if they are not too large, and later requests may share the same `D`: it
    /// must not hold the state of a request.
    ///
    /// `None` if the manager has no loader and nothing is cached, and always from
    /// [`TokenManager::check_token`](crate::TokenManager::check_token), which loads nothing.
    pub fn detail(&self) -> Option<&D> {
        self.detail.as_deref()
    }

    /// The public id of the session whose token was checked; `None` for a user from
    /// [`TokenManager::add_user`](crate::TokenManager::add_user), which involves no token.
    pub fn token_id(&self) -> Option<&TokenId> {
        self.token.as_ref().map(|token| &token.session)
    }

    /// The remaining time to live of the token when it was checked, by the store's clock.
    pub fn token_remaining(&self) -> Option<Duration> {
        self.token.map(|token| token.remaining)
    }

    /// When the token expires unless it is refreshed, by the store's clock. A token that was
    /// [replaced](crate::TokenManager::replace_token) expires with its grace at the latest.
    pub fn token_expires_at(&self) -> Option<SystemTime> {
        self.token.map(|token| token.expires_at)
    }
}

impl<D> Clone for User<D> {
    fn clone(&self) -> Self {
        Self {
            id: Arc::clone(&self.id),
            detail: self.detail.clone(),
            token: self.token,
        }
    }
}

impl<D> fmt::Debug for User<D> {
    /// Shows ids and times, and leaves out the detail, which may be sensitive.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id())
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
