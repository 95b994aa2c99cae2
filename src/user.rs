use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    TokenId,
    store::{Checked, SessionVersion},
    token::TokenIds,
};

/// An authenticated user: the id, the detail from the user loader, and the state of the token.
///
/// Cloning is cheap for any `D`, because clones share the detail. In axum handlers it is an extractor.
pub struct User<D = serde_json::Value> {
    id: Arc<str>,
    detail: Option<Arc<D>>,
    token: Option<TokenState>,
}

/// The state of a token at the time of a check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenState {
    pub(crate) ids: TokenIds,
    pub(crate) now: SystemTime,
    pub(crate) remaining: Duration,
    /// The end of the grace of a token that was replaced.
    pub(crate) usable_until: Option<SystemTime>,
    pub(crate) expires_at: SystemTime,
    pub(crate) refreshed_at: SystemTime,
    pub(crate) ends_at: Option<SystemTime>,
}

impl TokenState {
    pub(crate) fn of(ids: TokenIds, checked: &Checked) -> Self {
        let session = &checked.session;
        let usable_until = session.usable_until(&ids.token);
        let end = usable_until.map_or(session.expires_at, |end| end.min(session.expires_at));
        Self {
            ids,
            now: checked.now,
            remaining: end.duration_since(checked.now).unwrap_or_default(),
            usable_until,
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

    /// The ttl that the last refresh (or the login) set; `None` if the session already reaches its absolute end, or the
    /// token was replaced.
    pub(crate) fn renewable(&self) -> Option<Duration> {
        let ttl = self.expires_at.duration_since(self.refreshed_at).ok();
        ttl.filter(|_| self.ends_at != Some(self.expires_at) && self.usable_until.is_none())
    }
}

impl<D> User<D> {
    pub(crate) fn new(id: Arc<str>, detail: Option<Arc<D>>, token: Option<TokenState>) -> Self {
        Self { id, detail, token }
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
        self.token.as_ref().map(|token| &token.ids.session)
    }

    pub(crate) fn token(&self) -> Option<&TokenState> {
        self.token.as_ref()
    }

    /// The remaining time to live of the token when it was checked, by the store's clock.
    pub fn token_remaining(&self) -> Option<Duration> {
        self.token.map(|token| token.remaining)
    }

    /// When the token expires unless it is refreshed, by the store's clock. A token that was
    /// [replaced](crate::TokenManager::replace_token) expires with its grace at the latest.
    pub fn token_expires_at(&self) -> Option<SystemTime> {
        let token = self.token?;
        let end = token.usable_until;
        Some(end.map_or(token.expires_at, |end| end.min(token.expires_at)))
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
