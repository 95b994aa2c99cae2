use std::{error::Error as StdError, fmt};

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{Error, ErrorKind, RefusalReason};

/// Why a request was refused: the HTTP answer. (An event's reason is a [`RefusalReason`](crate::RefusalReason).)
///
/// Every refusal has it in the extensions of its response, so that layers further out can log it; an
/// [`OnRejection`](super::OnRejection) hook sees every one. With feature `axum` it is the rejection of the extractors.
///
/// `Display` is for the client: it names neither causes nor types. They are in [`source`](std::error::Error::source) and
/// `Debug`, for the log.
///
/// Without axum, a handler answers with `Response::from(rejection)`, or `Response::from(error)` for an [`Error`]: the
/// layer treats them like those of extractors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// The request has no bearer token: 401. By RFC 6750 §3.1 the challenge has no error code, by §3 it has
    /// a realm.
    MissingToken,
    /// The token is malformed, unknown, expired or revoked: 401 `invalid_token`.
    InvalidToken,
    /// The request has more than one token (RFC 6750 §3.1): 400 `invalid_request`.
    InvalidRequest,
    /// An argument of an operation cannot be used ([`ErrorKind::InvalidInput`]): 400, without a challenge.
    InvalidInput(Error),
    /// The user has as many sessions as allowed ([`ErrorKind::SessionLimit`]): 409.
    SessionLimit(Error),
    /// The store or the user loader failed, so there is no verdict on the token: 503 with `Retry-After`.
    Fault(Error),
    /// Something is wrong in the program, for example a user detail that cannot be written as JSON: 500.
    Internal(Error),
    /// There is no [`SessionLayer`](super::SessionLayer) for this user type on the route: 500.
    MissingLayer(MissingLayer),
}

/// An extractor found no layer for its user type; its `Display` names the types, for the log.
#[derive(Clone, Debug)]
pub struct MissingLayer(Box<Missing>);

/// In a box, so that results with a [`Rejection`] in them are small.
#[derive(Clone, Debug)]
struct Missing {
    extractor: &'static str,
    /// `None` for one without.
    user_type: Option<&'static str>,
    /// The layer around the handler, and its user type.
    present: Option<(&'static str, &'static str)>,
}

/// The response to a [`Rejection`] has this among its extensions until a layer has given it its realm and its looks.
#[derive(Clone, Copy)]
pub(super) struct PendingPostProcess;

// Constants, so that nothing is validated again for each response.
const MISSING_TOKEN: HeaderValue = HeaderValue::from_static(r#"Bearer realm="api""#);
const INVALID_TOKEN: HeaderValue = HeaderValue::from_static(
    r#"Bearer realm="api", error="invalid_token", error_description="the token is not valid or no longer valid""#,
);
const INVALID_REQUEST: HeaderValue = HeaderValue::from_static(
    r#"Bearer realm="api", error="invalid_request", error_description="more than one token""#,
);

/// The media type of a rejection's text.
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl Rejection {
    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MissingToken | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::InvalidRequest | Self::InvalidInput(_) => StatusCode::BAD_REQUEST,
            Self::SessionLimit(_) => StatusCode::CONFLICT,
            Self::Fault(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) | Self::MissingLayer(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The challenge of RFC 6750 §3, for the `WWW-Authenticate` header, with the default realm.
    pub fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::MissingToken => Some(MISSING_TOKEN),
            Self::InvalidToken => Some(INVALID_TOKEN),
            Self::InvalidRequest => Some(INVALID_REQUEST),
            _ => None,
        }
    }

    /// The [status code](https://grpc.io/docs/guides/status-codes/) for a gRPC client.
    pub fn grpc_status(&self) -> u16 {
        match self {
            Self::MissingToken | Self::InvalidToken => 16, // UNAUTHENTICATED
            Self::InvalidRequest | Self::InvalidInput(_) => 3, // INVALID_ARGUMENT
            Self::SessionLimit(_) => 8,                    // RESOURCE_EXHAUSTED
            Self::Fault(_) => 14,                          // UNAVAILABLE
            Self::Internal(_) | Self::MissingLayer(_) => 13, // INTERNAL
        }
    }

    /// The reason in the event of this rejection, if it is about how a token came.
    pub(super) fn refusal(&self) -> Option<RefusalReason> {
        match self {
            Self::InvalidToken => Some(RefusalReason::Malformed),
            Self::InvalidRequest => Some(RefusalReason::SeveralTokens),
            _ => None,
        }
    }

    /// Whether an optional layer lets the request through.
    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self, Self::MissingToken | Self::InvalidToken)
    }

    /// For an error of a check: a request is never to blame for one.
    pub(super) fn of_check(error: Error) -> Self {
        match error.is_fault() {
            true => Self::Fault(error),
            false => Self::Internal(error),
        }
    }

    /// The response without a body: status, challenge and `Retry-After`.
    pub(super) fn head(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Self::Fault(_) = self {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidInput => Self::InvalidInput(error),
            ErrorKind::SessionLimit => Self::SessionLimit(error),
            _ if error.is_fault() => Self::Fault(error),
            _ => Self::Internal(error),
        }
    }
}

/// The response of the layer, with this rejection's text as its body.
impl<B: From<String>> From<Rejection> for Response<B> {
    fn from(rejection: Rejection) -> Self {
        let text = B::from(rejection.to_string());
        let mut response = rejection.head().map(|()| text);
        response.headers_mut().insert(CONTENT_TYPE, TEXT);
        let extensions = response.extensions_mut();
        extensions.insert(rejection);
        extensions.insert(PendingPostProcess);
        response
    }
}

/// The response of the [`Rejection`] with this error: 503 with `Retry-After` for a [fault](Error::is_fault), 409 at the
/// session limit, 400 for invalid input, 500 for what is wrong in the program.
impl<B: From<String>> From<Error> for Response<B> {
    fn from(error: Error) -> Self {
        Rejection::from(error).into()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingToken => f.write_str("a bearer token is required"),
            Self::InvalidToken => f.write_str("the bearer token is not valid or no longer valid"),
            Self::InvalidRequest => f.write_str("the request has more than one token"),
            Self::InvalidInput(error) | Self::SessionLimit(error) => error.fmt(f),
            Self::Fault(_) => f.write_str("sessions are unavailable at the moment; try again"),
            Self::Internal(_) | Self::MissingLayer(_) => {
                f.write_str("an internal error in the handling of sessions")
            }
        }
    }
}

impl StdError for Rejection {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            // They show the error itself.
            Self::InvalidInput(error) | Self::SessionLimit(error) => error.source(),
            Self::Fault(error) | Self::Internal(error) => Some(error),
            Self::MissingLayer(missing) => Some(missing),
            Self::MissingToken | Self::InvalidToken | Self::InvalidRequest => None,
        }
    }
}

impl MissingLayer {
    /// For an extractor of this name and user type.
    #[cfg(feature = "axum")]
    pub(super) fn new<D>(extractor: &'static str) -> Self {
        Self(Box::new(Missing {
            extractor,
            user_type: Some(std::any::type_name::<D>()),
            present: None,
        }))
    }

    /// For the extractor of claims, which have no user type.
    #[cfg(all(feature = "axum", feature = "jwt"))]
    pub(super) fn claims() -> Self {
        Self(Box::new(Missing {
            extractor: "VerifiedClaims",
            user_type: None,
            present: None,
        }))
    }

    /// The same, now that the layer around the handler is known.
    pub(super) fn with_layer(&self, layer: &'static str, user_type: &'static str) -> Self {
        let mut missing = self.clone();
        missing.0.present = Some((layer, user_type));
        missing
    }

    /// Writes an error to the log: the client is not told what is wrong.
    pub(super) fn logged(self) -> Self {
        #[cfg(feature = "tracing")]
        tracing::error!("{self}");
        self
    }
}

impl fmt::Display for MissingLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extractor = self.0.extractor;
        match self.0.user_type {
            Some(wanted) => write!(
                f,
                "the request has no `{extractor}<{wanted}>`: put a layer with the user type `{wanted}` on the route"
            ),
            None => write!(
                f,
                "the request has no `{extractor}`: put a `JwtLayer` on the route"
            ),
        }?;
        match self.0.present {
            Some((layer, user_type)) => write!(f, "; it has a `{layer}<{user_type}>`"),
            None => Ok(()),
        }
    }
}

impl StdError for MissingLayer {}
