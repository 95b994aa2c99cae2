//! The axum extractors and responses.

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use super::{
    Anonymous, Rejection, Session,
    outcome::{self, missing_layer, reason},
    reject::WantedBy,
};
use crate::{Error, TokenManager, User};

impl<S: Sync, D: Send + Sync + 'static> FromRequestParts<S> for Session<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        session::<D>(parts, "Session").cloned()
    }
}

impl<S: Sync, D: Send + Sync + 'static> OptionalFromRequestParts<S> for Session<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        optional(session::<D>(parts, "Session").cloned())
    }
}

impl<S: Sync, D: Send + Sync + 'static> FromRequestParts<S> for User<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        user(parts).cloned()
    }
}

impl<S: Sync, D: Send + Sync + 'static> OptionalFromRequestParts<S> for User<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        optional(user(parts).cloned())
    }
}

/// For login routes under an [optional](super::SessionLayer::optional) layer.
impl<S: Sync, D: Send + Sync + 'static> FromRequestParts<S> for TokenManager<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        match parts.extensions.get::<Anonymous<D>>() {
            Some(anonymous) => Ok(anonymous.manager().clone()),
            None => session::<D>(parts, "TokenManager").map(|session| session.manager().clone()),
        }
    }
}

fn session<'a, D: Send + Sync + 'static>(
    parts: &'a Parts,
    extractor: &'static str,
) -> Result<&'a Session<D>, Rejection> {
    outcome::session(&parts.extensions, WantedBy::Extractor(extractor))
}

/// The user of a request, attached by a layer with or without sessions, or the reason why there is none.
fn user<D: Send + Sync + 'static>(parts: &Parts) -> Result<&User<D>, Rejection> {
    let user = parts.extensions.get::<User<D>>();
    user.ok_or_else(|| {
        let reason = reason::<D>(&parts.extensions);
        #[cfg(feature = "jwt")]
        let reason = reason.or_else(|| {
            let unverified = parts.extensions.get::<super::Unverified<D>>();
            unverified.map(|unverified| unverified.reason().clone())
        });
        reason.unwrap_or_else(|| missing_layer::<D>(WantedBy::Extractor("User")))
    })
}

pub(super) fn optional<T>(extracted: Result<T, Rejection>) -> Result<Option<T>, Rejection> {
    match extracted {
        Err(rejection) if rejection.is_anonymous() => Ok(None),
        extracted => extracted.map(Some),
    }
}

impl IntoResponse for Rejection {
    /// The layer's response to this rejection, with the rejection's text as the body.
    fn into_response(self) -> Response {
        self.into()
    }
}

impl IntoResponse for Error {
    /// The response to the [`Rejection`] with this error: 503 with `Retry-After` for a [fault](Error::is_fault), 409 at
    /// the session limit, 400 for invalid input, 500 for a mistake in the program or its deployment.
    fn into_response(self) -> Response {
        self.into()
    }
}
