//! What axum handlers can take as arguments and return.

use std::any::type_name;

use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use super::{Anonymous, Rejection, Session, respond::Unfinished};
use crate::{Error, ErrorKind, TokenManager, User};

impl<S: Sync, D: Send + Sync + 'static> FromRequestParts<S> for Session<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        session::<D, Self>(parts).cloned()
    }
}

impl<S: Sync, D: Send + Sync + 'static> OptionalFromRequestParts<S> for Session<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        optional(session::<D, Self>(parts).cloned())
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

/// For login routes, under an [optional](super::SessionLayer::optional) layer.
impl<S: Sync, D: Send + Sync + 'static> FromRequestParts<S> for TokenManager<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        match parts.extensions.get::<Anonymous<D>>() {
            Some(anonymous) => Ok(anonymous.manager().clone()),
            None => session::<D, Self>(parts).map(|session| session.manager().clone()),
        }
    }
}

/// The session of a request, or the layer's reason why there is none; `T` is what the handler asked for.
fn session<D: Send + Sync + 'static, T>(parts: &Parts) -> Result<&Session<D>, Rejection> {
    let session = parts.extensions.get::<Session<D>>();
    session.ok_or_else(|| reason::<D>(parts).unwrap_or_else(missing_layer::<T>))
}

/// The same for the user, whom a layer without sessions may have found, too.
fn user<D: Send + Sync + 'static>(parts: &Parts) -> Result<&User<D>, Rejection> {
    let user = parts.extensions.get::<User<D>>();
    user.ok_or_else(|| {
        let reason = reason::<D>(parts);
        #[cfg(feature = "jwt")]
        let reason = reason.or_else(|| {
            let unverified = parts.extensions.get::<super::Unverified<D>>();
            unverified.map(|unverified| unverified.reason().clone())
        });
        reason.unwrap_or_else(missing_layer::<User<D>>)
    })
}

fn reason<D: Send + Sync + 'static>(parts: &Parts) -> Option<Rejection> {
    let anonymous = parts.extensions.get::<Anonymous<D>>();
    anonymous.map(|anonymous| anonymous.reason().clone())
}

pub(super) fn missing_layer<T>() -> Rejection {
    Rejection::MissingLayer {
        looked_for: type_name::<T>(),
    }
}

pub(super) fn optional<T>(extracted: Result<T, Rejection>) -> Result<Option<T>, Rejection> {
    match extracted {
        Err(rejection) if rejection.is_anonymous() => Ok(None),
        extracted => extracted.map(Some),
    }
}

impl IntoResponse for Rejection {
    /// The response of the layer, with this rejection's text as its body.
    fn into_response(self) -> Response {
        let text = Body::from(self.to_string());
        let mut response = self.response::<Body>().map(|_| text);
        let extensions = response.extensions_mut();
        extensions.insert(self);
        extensions.insert(Unfinished);
        response
    }
}

impl IntoResponse for Error {
    /// 503 with `Retry-After` for a [fault](Error::is_fault), 409 at the session limit, 400 for invalid
    /// input, 500 for what is wrong in the program. The response's extensions have the error, or the
    /// [`Rejection`] with it.
    fn into_response(self) -> Response {
        let status = match self.kind() {
            ErrorKind::SessionLimit => StatusCode::CONFLICT,
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            _ => return Rejection::from(self).into_response(),
        };
        let mut response = (status, self.to_string()).into_response();
        response.extensions_mut().insert(self);
        response
    }
}
