use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    TokenId,
    store::{Checked, SessionVersion},
};

/// A user as a check found it: who it is, what your loader knows of it, and how long its token lives.
///
/// Cloning is cheap, whatever `D` is: users that a manager finds with the same detail share it. In axum handlers it is
/// an extractor.
pub struct User<D = serde_json::Value> {
    id: Arc<str>,
    detail: Option<Arc<D>>,
    token: Option<TokenState>,
}

/// What a check learned of the token that it was asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenState {
    pub(crate) id: TokenId,
    pub(crate) remaining: Duration,
    pub(crate) expires_at: SystemTime,
    pub(crate) refreshed_at: SystemTime,
    pub(crate) ends_at: Option<SystemTime>,
}

impl TokenState {
    pub(crate) fn of(id: TokenId, checked: &Checked) -> Self {
        let session = &checked.session;
        let remaining = session.expires_at.duration_since(checked.now);
        Self {
            id,
            remaining: remaining.unwrap_or_default(),
            expires_at: session.expires_at,
            refreshed_at: session.refreshed_at,
            ends_at: session.ends_at,
        }
    }

    pub(crate) fn version(&self) -> SessionVersion {
        SessionVersion {
            refreshed_at: self.refreshed_at,
            expires_at: self.expires_at,
        }
    }

    /// What it was last good for; `None` if nothing can prolong it.
    pub(crate) fn renewable(&self) -> Option<Duration> {
        let ttl = self.expires_at.duration_since(self.refreshed_at).ok();
        ttl.filter(|_| self.ends_at != Some(self.expires_at))
    }
}

impl<D> User<D> {
    pub(crate) fn new(id: Arc<str>, detail: Option<Arc<D>>, token: Option<TokenState>) -> Self {
        Self { id, detail, token }
    }

    /// The user id that the token was minted for.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the user loader (or the cache of what it loaded) says of the user.
    ///
    /// A manager decodes each version of a user once, if it is not too large, and remembers some users: later requests
    /// may get the very same `D`. It must not keep the state of a request.
    ///
    /// `None` if the manager has no loader and nothing is cached, and for a user from
    /// [`TokenManager::check_token`](crate::TokenManager::check_token), which loads nothing.
    pub fn detail(&self) -> Option<&D> {
        self.detail.as_deref()
    }

    /// The public handle of the token that was checked; `None` for a user that came without one,
    /// from [`TokenManager::add_user`](crate::TokenManager::add_user).
    pub fn token_id(&self) -> Option<&TokenId> {
        self.token.as_ref().map(|token| &token.id)
    }

    pub(crate) fn token(&self) -> Option<&TokenState> {
        self.token.as_ref()
    }

    /// How long the token had to live when it was checked, by the store's clock.
    pub fn token_remaining(&self) -> Option<Duration> {
        self.token.map(|token| token.remaining)
    }

    /// When the token expires unless it is refreshed, by the store's clock.
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
    /// Shows ids and times; the detail may be anything, so it is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id())
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
