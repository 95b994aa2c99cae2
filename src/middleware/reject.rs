use std::fmt;

use http::{HeaderValue, StatusCode};

use crate::{Error, Refusal};

/// Why a request was refused.
///
/// The layer puts it into the extensions of the response that it makes, so that layers further out can log it or
/// write a body; but its own 401 has none, because the challenge says all of it and anybody can cause one. (That to a
/// gRPC call has no challenge, and has it.) An [`OnRejection`](super::OnRejection) hook sees every one. With feature `axum`
/// it is the rejection of the extractors, and in the extensions of their responses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// The request has no bearer token: 401. By RFC 6750 §3.1 the challenge has no error code, by §3 it has
    /// a realm.
    MissingToken,
    /// The token is malformed, unknown, expired or revoked: 401 `invalid_token`.
    InvalidToken,
    /// The request has more than one token in one place, such as two `Authorization` headers: 400
    /// `invalid_request`.
    InvalidRequest,
    /// The store or the user loader failed, so there is no verdict on the token: 503 with `Retry-After`.
    Fault(Error),
    /// Something is wrong in the program, for example a user detail that cannot be written as JSON: 500.
    Internal(Error),
    /// There is no [`SessionLayer`](super::SessionLayer) for this user type on the route: 500.
    MissingLayer {
        /// The type that was looked for in the request's extensions.
        looked_for: &'static str,
    },
}

// Constants, so that nothing is validated again for each response.
const MISSING_TOKEN: HeaderValue = HeaderValue::from_static(r#"Bearer realm="api""#);
const INVALID_TOKEN: HeaderValue = HeaderValue::from_static(
    r#"Bearer realm="api", error="invalid_token", error_description="the token is not valid or no longer valid""#,
);
const INVALID_REQUEST: HeaderValue = HeaderValue::from_static(
    r#"Bearer realm="api", error="invalid_request", error_description="more than one token""#,
);

impl Rejection {
    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MissingToken | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Fault(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) | Self::MissingLayer { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The challenge of RFC 6750 §3, for the `WWW-Authenticate` header, with the default realm.
    pub fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::MissingToken => Some(MISSING_TOKEN),
            Self::InvalidToken => Some(INVALID_TOKEN),
            Self::InvalidRequest => Some(INVALID_REQUEST),
            Self::Fault(_) | Self::Internal(_) | Self::MissingLayer { .. } => None,
        }
    }

    /// The [status code](https://grpc.io/docs/guides/status-codes/) for a gRPC client.
    pub fn grpc_status(&self) -> u16 {
        match self {
            Self::MissingToken | Self::InvalidToken => 16, // UNAUTHENTICATED
            Self::InvalidRequest => 3,                     // INVALID_ARGUMENT
            Self::Fault(_) => 14,                          // UNAVAILABLE
            Self::Internal(_) | Self::MissingLayer { .. } => 13, // INTERNAL
        }
    }

    /// What it is to those who listen to events, if it is about how a token came.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::InvalidToken => Some(Refusal::Malformed),
            Self::InvalidRequest => Some(Refusal::SeveralTokens),
            _ => None,
        }
    }

    /// Whether an optional layer lets the request through.
    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self, Self::MissingToken | Self::InvalidToken)
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        if error.is_fault() {
            Self::Fault(error)
        } else {
            Self::Internal(error)
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingToken => f.write_str("a bearer token is required"),
            Self::InvalidToken => f.write_str("the bearer token is not valid or no longer valid"),
            Self::InvalidRequest => f.write_str("the request has more than one token"),
            Self::Fault(_) => f.write_str("sessions are unavailable at the moment; try again"),
            Self::Internal(_) => f.write_str("an internal error in the handling of sessions"),
            Self::MissingLayer { looked_for } => write!(
                f,
                "no `{looked_for}` in the request's extensions: put a `SessionLayer` with this user type on the route"
            ),
        }
    }
}

impl std::error::Error for Rejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Fault(error) | Self::Internal(error) => Some(error),
            _ => None,
        }
    }
}
