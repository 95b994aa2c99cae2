use std::{fmt, time::Duration};

use http::Extensions;

use super::{Rejection, Revoked};
#[cfg(feature = "jwt")]
use crate::jwt::VerifiedClaims;
use crate::{Error, TokenId, TokenManager, User};

/// The session of a request: its user, and the handle to log out with.
///
/// The layer puts it into the extensions of each request with a live token; in axum handlers it is an
/// extractor. Cloning is cheap.
pub struct Session<D = serde_json::Value> {
    user: User<D>,
    token_id: TokenId,
    manager: TokenManager<D>,
}

impl<D> Session<D> {
    pub(super) fn new(user: User<D>, token_id: TokenId, manager: TokenManager<D>) -> Self {
        Self {
            user,
            token_id,
            manager,
        }
    }

    /// Whose session it is.
    pub fn user(&self) -> &User<D> {
        &self.user
    }

    /// The public handle of this session.
    pub fn token_id(&self) -> &TokenId {
        &self.token_id
    }

    /// The manager behind the layer, for everything else that can be done with tokens.
    pub fn manager(&self) -> &TokenManager<D> {
        &self.manager
    }

    /// Ends this session, everywhere at once. `false` if it had ended already.
    ///
    /// # Errors
    ///
    /// Faults of the store, like all methods here: then it is not certain that anything was done, and
    /// the user must not be told so.
    pub async fn log_out(&self) -> Result<bool, Error> {
        let (manager, user_id) = (&self.manager, self.user.id());
        manager.delete_user_token(user_id, &self.token_id).await
    }

    /// Ends all other sessions of this user; tells how many.
    pub async fn log_out_others(&self) -> Result<u64, Error> {
        let (manager, user_id) = (&self.manager, self.user.id());
        manager
            .delete_other_user_tokens(user_id, &self.token_id)
            .await
    }

    /// Ends all sessions of this user, this one included; tells how many.
    pub async fn log_out_everywhere(&self) -> Result<u64, Error> {
        self.manager.delete_user_tokens(self.user.id()).await
    }

    /// Makes this session expire `ttl` from now (`None`: the manager's token ttl), but never after its
    /// absolute end. `false` if it has ended already: a refresh never brings a session back.
    pub async fn refresh(&self, ttl: impl Into<Option<Duration>>) -> Result<bool, Error> {
        let (manager, user_id) = (&self.manager, self.user.id());
        manager
            .refresh_user_token(user_id, &self.token_id, ttl)
            .await
    }
}

impl<D: Send + Sync + 'static> Session<D> {
    /// Resolves when this session has ended: logged out anywhere, evicted, or expired. Whoever streams to a client
    /// (WebSocket, server-sent events) waits for it, too, and then closes the stream.
    ///
    /// For now it asks the store at once and then at the
    /// [interval](crate::TokenManagerBuilder::revocation_poll) of the manager, with one check each time. While the store is
    /// not available, a session counts as ended only at its [absolute end](crate::TokenOptions::max_lifetime), if it has one
    /// that an earlier answer has told: during an outage, streams of sessions that were logged out or have expired go on.
    /// It does not ask the user loader.
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
            manager.until_ended(user_id, &session.token_id).await;
        })
    }
}

impl<D> Clone for Session<D> {
    fn clone(&self) -> Self {
        Self::new(self.user.clone(), self.token_id, self.manager.clone())
    }
}

impl<D> fmt::Debug for Session<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

/// What a request without a live token has in its extensions in place of a [`Session`], under an
/// [optional](super::SessionLayer::optional) layer.
pub struct Anonymous<D = serde_json::Value> {
    reason: Rejection,
    manager: TokenManager<D>,
}

impl<D> Anonymous<D> {
    pub(super) fn new(reason: Rejection, manager: TokenManager<D>) -> Self {
        Self { reason, manager }
    }

    /// What a required layer would have said.
    pub fn reason(&self) -> &Rejection {
        &self.reason
    }

    /// The manager behind the layer, to log somebody in.
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

/// What a request without a verified token has in its extensions, under a [`JwtLayer`](super::JwtLayer) in optional mode.
#[cfg(feature = "jwt")]
pub struct Unverified<D = serde_json::Value> {
    reason: Rejection,
    user_type: std::marker::PhantomData<fn() -> D>,
}

#[cfg(feature = "jwt")]
impl<D> Unverified<D> {
    /// What a required layer would have said.
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

/// Why a request has no verified claims: the extractor of claims does not know the `D` of [`Unverified`].
#[cfg(all(feature = "axum", feature = "jwt"))]
#[derive(Clone)]
pub(super) struct NoClaims(pub(super) Rejection);

/// Puts the verdict of a layer into a request, in place of that of a layer further out.
pub(super) fn insert_auth_extensions<D: Send + Sync + 'static>(
    extensions: &mut Extensions,
    verdict: Result<Session<D>, Anonymous<D>>,
) {
    #[cfg(feature = "jwt")]
    {
        extensions.remove::<Unverified<D>>();
        extensions.remove::<VerifiedClaims>();
        #[cfg(feature = "axum")]
        extensions.remove::<NoClaims>();
    }
    match verdict {
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

/// The same for a layer that knows no sessions.
#[cfg(feature = "jwt")]
pub(super) fn insert_offline_auth_extensions<D: Send + Sync + 'static>(
    extensions: &mut Extensions,
    verdict: Result<(User<D>, VerifiedClaims), Rejection>,
) {
    extensions.remove::<Anonymous<D>>();
    extensions.remove::<Session<D>>();
    match verdict {
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
