use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Revoked, TokenSource};
use crate::{
    Error, RefusalReason, ReplaceOptions, Replacement, Scopes, TokenId, TokenManager, User,
    manager::{Authenticated, Late, SessionState, metadata},
    token::ParsedToken,
};

/// The session of a request: its user, what is known of it, and the means to change and end it.
///
/// The layer attaches it to the extensions of each request with a live token. With feature `axum` it is an extractor.
/// Cloning is cheap.
///
/// What it says of the session is as of the check of the request, by the store's clock; a change by this request or
/// another one does not show in it.
pub struct Session<D = serde_json::Value> {
    user: User<D>,
    state: SessionState,
    manager: TokenManager<D>,
    source: TokenSource,
}

impl<D> Session<D> {
    #[inline]
    pub(super) fn new(
        authenticated: Authenticated<D>,
        manager: TokenManager<D>,
        source: TokenSource,
    ) -> Self {
        let Authenticated {
            user,
            session: state,
        } = authenticated;
        Self {
            user,
            state,
            manager,
            source,
        }
    }

    /// The user of this session.
    pub fn user(&self) -> &User<D> {
        &self.user
    }

    /// The public handle of this session.
    pub fn token_id(&self) -> &TokenId {
        &self.state.ids.session
    }

    /// When the session started.
    pub fn created_at(&self) -> SystemTime {
        self.state.record.created_at
    }

    /// When the user last proved who they are: at the login, or when
    /// [`mark_authenticated`](Self::mark_authenticated) or a [replacement](ReplaceOptions::authenticated) noted it.
    pub fn authenticated_at(&self) -> SystemTime {
        self.state.record.authenticated_at
    }

    /// When the token of the request expires unless the session is refreshed.
    pub fn expires_at(&self) -> SystemTime {
        self.state.expires_at()
    }

    /// The absolute end of the session, if it has one: no refresh moves it.
    pub fn ends_at(&self) -> Option<SystemTime> {
        self.state.record.ends_at
    }

    /// When a request with the session came last before this one, as noted by a layer with
    /// [`note_last_seen`](crate::SessionLayer::note_last_seen); in whole seconds.
    pub fn last_seen_at(&self) -> Option<SystemTime> {
        metadata::seen_at(self.state.record.metadata.as_deref())
    }

    /// The time since the session started.
    ///
    /// Never compare the times of a session with the system's clock, which may differ from the store's: use the ages.
    pub fn age(&self) -> Duration {
        self.state.since(self.created_at())
    }

    /// The time since the user last proved who they are, for routes that ask for a recent login (RFC 9470).
    pub fn authentication_age(&self) -> Duration {
        self.state.since(self.authenticated_at())
    }

    /// The metadata of the session, which the [login](crate::TokenOptions::metadata) set or a later change.
    pub fn metadata(&self) -> Map<String, Value> {
        metadata::entries(self.state.record.metadata.as_deref())
    }

    /// The metadata of the session as a type of your own.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Device {
    ///     name: String,
    ///     version: Option<u32>,
    /// }
    ///
    /// # use tower_bearer_session::{Error, Session};
    /// fn device_of(session: &Session) -> Result<Device, Error> {
    ///     session.metadata_as()
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialize`](crate::ErrorKind::Serialize) if the metadata are not of this type.
    pub fn metadata_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        metadata::entries_as(self.state.record.metadata.as_deref())
    }

    /// The scopes of the session, which the [login](crate::TokenOptions::scopes) set or a later replacement.
    pub fn scopes(&self) -> Scopes {
        metadata::scopes(self.state.record.metadata.as_deref())
    }

    /// The manager behind the layer, for all other operations.
    pub fn manager(&self) -> &TokenManager<D> {
        &self.manager
    }

    /// The source by which the token of this request came: one of the
    /// [`token_sources`](super::SessionLayer::token_sources) of the layer.
    ///
    /// ```
    /// # use tower_bearer_session::{Session, middleware::TokenSource};
    /// fn must_check_origin(session: &Session) -> bool {
    ///     session.source().is_cookie()
    /// }
    ///
    /// fn came_by(session: &Session, source: &TokenSource) -> bool {
    ///     session.source() == source
    /// }
    /// ```
    pub fn source(&self) -> &TokenSource {
        &self.source
    }

    /// Ends this session, everywhere at once. Returns `false` if it had already ended.
    ///
    /// # Errors
    ///
    /// Faults of the store, as in all methods of this type. After one it is unknown whether the session has ended, so
    /// do not tell the user that it has.
    pub async fn log_out(&self) -> Result<bool, Error> {
        let (user_id, metadata) = (Arc::clone(self.user.shared_id()), self.stored_metadata());
        let manager = &self.manager;
        manager
            .delete_session(user_id, *self.token_id(), Some(metadata))
            .await
    }

    /// Ends all other sessions of this user, and returns how many.
    pub async fn log_out_others(&self) -> Result<u64, Error> {
        let (manager, user_id) = (&self.manager, self.user.id());
        manager
            .delete_other_user_tokens(user_id, self.token_id())
            .await
    }

    /// Ends all sessions of this user, including this one, and returns how many.
    pub async fn log_out_everywhere(&self) -> Result<u64, Error> {
        self.manager.delete_user_tokens(self.user.id()).await
    }

    /// Makes this session expire `ttl` from now, but never after its absolute end.
    ///
    /// `None` stands for the manager's token ttl. Returns `false` if the session has already ended, because a refresh
    /// never brings a session back, or if the token of the request was replaced.
    pub async fn refresh(&self, ttl: impl Into<Option<Duration>>) -> Result<bool, Error> {
        let (token, ttl) = (self.parsed(), self.manager.token_ttl(ttl)?);
        let (manager, metadata) = (&self.manager, self.stored_metadata());
        manager
            .refresh_session(&token, Some(metadata), ttl, Late::IsRefused)
            .await
    }

    /// Replaces the token of the request by a new one of this session, as
    /// [`TokenManager::replace_token`] does, in one round trip.
    ///
    /// Send the new token to the client. This handle then stands for the replaced token.
    ///
    /// # Errors
    ///
    /// Those of [`TokenManager::replace_token`].
    pub async fn replace_token(&self, options: ReplaceOptions) -> Result<Replacement, Error> {
        let (user_id, state) = (Arc::clone(self.user.shared_id()), self.state.clone());
        let replacing = self
            .manager
            .replace(user_id, state, &options, Late::IsRefused);
        replacing.await
    }

    /// Changes the metadata of this session, as [`TokenManager::update_token_metadata`] does, in one round trip unless
    /// there are concurrent changes.
    ///
    /// # Errors
    ///
    /// Those of [`TokenManager::update_token_metadata`].
    pub async fn update_metadata(
        &self,
        update: impl FnMut(&mut Map<String, Value>) + Send,
    ) -> Result<Option<Map<String, Value>>, Error> {
        let user_id = Arc::clone(self.user.shared_id());
        let current = self.stored_metadata();
        let manager = &self.manager;
        manager
            .change_metadata(user_id, *self.token_id(), current, update)
            .await
    }

    /// Notes that the user has just proved again who they are, for example by their password.
    ///
    /// Returns `false` if the session has already ended, or if the token of the request was replaced. Better
    /// [replace the token](ReplaceOptions::authenticated) where the client can take a new one: then somebody who has
    /// copied the old one gains nothing.
    pub async fn mark_authenticated(&self) -> Result<bool, Error> {
        let (token, metadata) = (self.parsed(), self.stored_metadata());
        self.manager
            .authenticate_again(&token, Some(metadata), Late::IsRefused)
            .await
    }

    /// Whether the token of the request is the current one of the session, and not one that was
    /// [replaced](Self::replace_token) and is in its grace.
    pub fn has_current_token(&self) -> bool {
        self.state.is_current()
    }

    /// Reports that a guard refused this session.
    pub(super) fn report_refusal(&self, reason: RefusalReason) {
        let claim = (self.user.id(), Some(self.token_id()));
        let metadata = self.state.record.metadata.as_deref().unwrap_or_default();
        self.manager.refused(Some(claim), reason, Some(metadata));
    }

    /// The metadata as the store has them.
    fn stored_metadata(&self) -> Bytes {
        self.state.record.metadata()
    }

    fn parsed(&self) -> ParsedToken {
        ParsedToken {
            user_id: Arc::clone(self.user.shared_id()),
            ids: self.state.ids,
        }
    }
}

impl<D: Send + Sync + 'static> Session<D> {
    /// Returns a future that resolves when this session has ended (logged out anywhere, evicted, or expired), or when
    /// the token of this request was replaced and its grace is over.
    ///
    /// A handler that streams to a client (WebSocket, server-sent events) also waits for this future, and then closes
    /// the stream.
    ///
    /// The future checks the session in the store at once, then about at the
    /// [interval](crate::TokenManagerBuilder::revocation_poll) of the manager, and whenever the store
    /// [tells of a change](crate::SessionStore::changed), which a [`MemoryStore`](crate::MemoryStore) does, and a
    /// `RedisStore` with a near-cache. Streams of one session share a background task that does so,
    /// from the first poll of a future until all are dropped. It never calls the user loader, and its
    /// [events](crate::Event) have no context. During an outage of the store, only sessions past their [absolute
    /// end](crate::TokenOptions::max_lifetime), if an earlier check returned one, are reported as ended: streams of
    /// sessions that were logged out or have expired go on.
    ///
    /// # Panics
    ///
    /// The future panics if it is polled outside of a tokio runtime.
    ///
    /// ```no_run
    /// # async fn next_message() {}
    /// # async fn f(session: tower_bearer_session::Session) {
    /// let mut revoked = std::pin::pin!(session.revoked());
    /// loop {
    ///     tokio::select! {
    ///         () = &mut revoked => break,
    ///         message = next_message() => { /* send it */ }
    ///     }
    /// }
    /// # }
    /// ```
    pub fn revoked(&self) -> Revoked {
        let session = self.clone();
        Revoked::new(async move {
            let (manager, user_id) = (&session.manager, session.user.shared_id());
            manager.until_ended(user_id, session.state.ids).await;
        })
    }
}

impl<D> Clone for Session<D> {
    fn clone(&self) -> Self {
        Self {
            user: self.user.clone(),
            state: self.state.clone(),
            manager: self.manager.clone(),
            source: self.source.clone(),
        }
    }
}

impl<D> fmt::Debug for Session<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .field("manager", &self.manager)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}
