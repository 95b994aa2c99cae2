use std::{fmt, time::Duration};

use http::Extensions;

use super::{Rejection, Revoked, TokenSource};
#[cfg(feature = "jwt")]
use crate::jwt::VerifiedClaims;
use crate::{
    Error, ReplaceOptions, Replacement, TokenId, TokenManager, User,
    manager::Late,
    token::{ParsedToken, TokenIds},
};

/// The session of a request: its user, its handle, and the means to refresh and end it.
///
/// The layer attaches it to the extensions of each request with a live token. With feature `axum` it is an extractor.
/// Cloning is cheap.
pub struct Session<D = serde_json::Value> {
    user: User<D>,
    ids: TokenIds,
    manager: TokenManager<D>,
    source: TokenSource,
}

impl<D> Session<D> {
    pub(super) fn new(
        user: User<D>,
        ids: TokenIds,
        manager: TokenManager<D>,
        source: TokenSource,
    ) -> Self {
        Self {
            user,
            ids,
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
        &self.ids.session
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
        let (manager, user_id) = (&self.manager, self.user.id());
        manager.delete_user_token(user_id, self.token_id()).await
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
        let refreshing = self.manager.refresh_session(&token, ttl, Late::IsRefused);
        refreshing.await
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
        let change = options.into_change()?;
        let checked = self
            .user
            .token()
            .expect("the user of a session has a token");
        let token = self.parsed();
        let replacing = self.manager.replace(
            &token,
            (checked.now, checked.ends_at),
            change,
            Late::IsRefused,
        );
        replacing.await
    }

    fn parsed(&self) -> ParsedToken {
        ParsedToken {
            user_id: self.user.id().into(),
            ids: self.ids,
        }
    }
}

impl<D: Send + Sync + 'static> Session<D> {
    /// Returns a future that resolves when this session has ended (logged out anywhere, evicted, or expired), or when the
    /// token of this request was replaced and its grace is over.
    ///
    /// A handler that streams to a client (WebSocket, server-sent events) also waits for this future, and then closes
    /// the stream.
    ///
    /// The future checks the session in the store at once, then at the
    /// [interval](crate::TokenManagerBuilder::revocation_poll) of the manager, and whenever the store
    /// [tells of a change](crate::SessionStore::changed), which only a [`MemoryStore`](crate::MemoryStore) does at
    /// present. It never calls the user loader. During
    /// an outage of the store, only sessions past their [absolute end](crate::TokenOptions::max_lifetime), if an
    /// earlier check returned one, are reported as ended: streams of sessions that were logged out or have expired go
    /// on.
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
            let (manager, user_id) = (&session.manager, session.user.id());
            manager.until_ended(user_id, session.ids).await;
        })
    }
}

impl<D> Clone for Session<D> {
    fn clone(&self) -> Self {
        Self {
            user: self.user.clone(),
            ids: self.ids,
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

/// The extension of a request without a live token, in place of a [`Session`], under an
/// [optional](super::SessionLayer::optional) layer.
pub struct Anonymous<D = serde_json::Value> {
    reason: Rejection,
    manager: TokenManager<D>,
}

impl<D> Anonymous<D> {
    pub(super) fn new(reason: Rejection, manager: TokenManager<D>) -> Self {
        Self { reason, manager }
    }

    /// The rejection with which a required layer would have refused the request.
    pub fn reason(&self) -> &Rejection {
        &self.reason
    }

    /// The manager behind the layer, for logins.
    pub fn manager(&self) -> &TokenManager<D> {
        &self.manager
    }
}

impl<D> Clone for Anonymous<D> {
    fn clone(&self) -> Self {
        Self::new(self.reason.clone(), self.manager.clone())
    }
}

impl<D> fmt::Debug for Anonymous<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anonymous")
            .field("reason", &self.reason)
            .field("manager", &self.manager)
            .finish()
    }
}

/// The extension of a request without a verified token, under a [`JwtLayer`](super::JwtLayer) in optional mode.
#[cfg(feature = "jwt")]
pub struct Unverified<D = serde_json::Value> {
    reason: Rejection,
    user_type: std::marker::PhantomData<fn() -> D>,
}

#[cfg(feature = "jwt")]
impl<D> Unverified<D> {
    /// The rejection with which a required layer would have refused the request.
    pub fn reason(&self) -> &Rejection {
        &self.reason
    }
}

#[cfg(feature = "jwt")]
impl<D> Clone for Unverified<D> {
    fn clone(&self) -> Self {
        Self {
            reason: self.reason.clone(),
            user_type: self.user_type,
        }
    }
}

#[cfg(feature = "jwt")]
impl<D> fmt::Debug for Unverified<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unverified")
            .field("reason", &self.reason)
            .finish()
    }
}

/// The reason why a request has no verified claims, for the extractor of claims, which does not know the `D` of
/// [`Unverified`].
#[cfg(all(feature = "axum", feature = "jwt"))]
#[derive(Clone)]
pub(super) struct NoClaims(pub(super) Rejection);

/// Attaches the outcome of a layer to a request, and removes that of an outer layer.
pub(super) fn insert_auth_extensions<D: Send + Sync + 'static>(
    extensions: &mut Extensions,
    outcome: Result<Session<D>, Anonymous<D>>,
) {
    #[cfg(feature = "jwt")]
    {
        extensions.remove::<Unverified<D>>();
        extensions.remove::<VerifiedClaims>();
        #[cfg(feature = "axum")]
        extensions.remove::<NoClaims>();
    }
    match outcome {
        Ok(session) => {
            extensions.remove::<Anonymous<D>>();
            extensions.insert(session.user.clone());
            extensions.insert(session);
        }
        Err(anonymous) => {
            extensions.remove::<User<D>>();
            extensions.remove::<Session<D>>();
            extensions.insert(anonymous);
        }
    }
}

/// Attaches the outcome of a layer without sessions to a request, and removes that of an outer layer.
#[cfg(feature = "jwt")]
pub(super) fn insert_offline_auth_extensions<D: Send + Sync + 'static>(
    extensions: &mut Extensions,
    outcome: Result<(User<D>, VerifiedClaims), Rejection>,
) {
    extensions.remove::<Anonymous<D>>();
    extensions.remove::<Session<D>>();
    match outcome {
        Ok((user, claims)) => {
            extensions.remove::<Unverified<D>>();
            #[cfg(feature = "axum")]
            extensions.remove::<NoClaims>();
            extensions.insert(user);
            extensions.insert(claims);
        }
        Err(reason) => {
            extensions.remove::<User<D>>();
            extensions.remove::<VerifiedClaims>();
            #[cfg(feature = "axum")]
            extensions.insert(NoClaims(reason.clone()));
            extensions.insert(Unverified::<D> {
                reason,
                user_type: std::marker::PhantomData,
            });
        }
    }
}
