//! What a layer attaches to requests.

use std::fmt;

use http::Extensions;

use super::{
    Rejection, Session,
    reject::{MissingLayer, WantedBy},
};
#[cfg(feature = "jwt")]
use crate::jwt::VerifiedClaims;
use crate::{TokenManager, User};

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

/// The session of a request, or the reason why the layer attached none.
pub(super) fn session<D: Send + Sync + 'static>(
    extensions: &Extensions,
    wanted_by: WantedBy,
) -> Result<&Session<D>, Rejection> {
    let session = extensions.get::<Session<D>>();
    session.ok_or_else(|| reason::<D>(extensions).unwrap_or_else(|| missing_layer::<D>(wanted_by)))
}

/// The claims of a request under a layer without sessions, or the reason why it attached none; `None` without such a
/// layer for this `D`.
#[cfg(feature = "jwt")]
pub(super) fn claims<D: Send + Sync + 'static>(
    extensions: &Extensions,
) -> Option<Result<&VerifiedClaims, Rejection>> {
    if let Some(unverified) = extensions.get::<Unverified<D>>() {
        return Some(Err(unverified.reason().clone()));
    }
    let offline = extensions.get::<Offline<D>>()?;
    Some(Ok(&offline.claims))
}

/// The claims by which guards judge the user of a layer without sessions. The extension [`VerifiedClaims`], which has
/// no user type, may be of another layer further in.
#[cfg(feature = "jwt")]
struct Offline<D> {
    claims: VerifiedClaims,
    user_type: std::marker::PhantomData<fn() -> D>,
}

#[cfg(feature = "jwt")]
impl<D> Clone for Offline<D> {
    fn clone(&self) -> Self {
        Self {
            claims: self.claims.clone(),
            user_type: self.user_type,
        }
    }
}

/// The reason why an optional layer attached no session.
pub(super) fn reason<D: Send + Sync + 'static>(extensions: &Extensions) -> Option<Rejection> {
    let anonymous = extensions.get::<Anonymous<D>>();
    anonymous.map(|anonymous| anonymous.reason().clone())
}

pub(super) fn missing_layer<D>(wanted_by: WantedBy) -> Rejection {
    Rejection::MissingLayer(MissingLayer::new::<D>(wanted_by).logged())
}

/// Attaches the outcome of a layer to a request, and removes that of an outer layer.
#[inline]
pub(super) fn insert_auth_extensions<D: Send + Sync + 'static>(
    extensions: &mut Extensions,
    outcome: Result<Session<D>, Anonymous<D>>,
) {
    #[cfg(feature = "jwt")]
    {
        extensions.remove::<Unverified<D>>();
        extensions.remove::<Offline<D>>();
        extensions.remove::<VerifiedClaims>();
        #[cfg(feature = "axum")]
        extensions.remove::<NoClaims>();
    }
    match outcome {
        Ok(session) => {
            extensions.remove::<Anonymous<D>>();
            extensions.insert(session.user().clone());
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
            extensions.insert(Offline::<D> {
                claims: claims.clone(),
                user_type: std::marker::PhantomData,
            });
            extensions.insert(claims);
        }
        Err(reason) => {
            extensions.remove::<User<D>>();
            extensions.remove::<Offline<D>>();
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
