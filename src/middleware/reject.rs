use std::{error::Error as StdError, fmt, time::Duration};

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{Error, ErrorKind, RefusalReason, Scopes};

/// The reason why a request was refused, which determines the HTTP response.
///
/// (The reason in an event is a [`RefusalReason`](crate::RefusalReason).) The response to a refused request has its
/// rejection among the extensions, so that outer layers can log it, and an [`OnRejection`](super::OnRejection) hook
/// sees it unless the response is a gRPC one. With feature `axum` it is the rejection type of the extractors.
///
/// `Display` is for the client and names neither causes nor types. [`source`](std::error::Error::source) and `Debug`
/// have them, for the log.
///
/// Without axum, a handler returns `Response::from(rejection)`, or `Response::from(error)` for an [`Error`]; with a
/// body that is not `From<String>`, `Response::<String>::from(error).map(…)`. The layer treats these like the
/// rejections of extractors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// The request has no bearer token: 401. The challenge has no error code (RFC 6750 §3.1), but a realm (§3).
    MissingToken,
    /// The token is malformed, unknown, expired or revoked: 401 `invalid_token`.
    InvalidToken,
    /// The request has more than one token (RFC 6750 §3.1): 400 `invalid_request`.
    InvalidRequest,
    /// An argument of an operation is invalid ([`ErrorKind::InvalidInput`]): 400, without a challenge.
    InvalidInput(Error),
    /// The session lacks a scope that a [`RequireScope`](super::RequireScope) asks for: 403 `insufficient_scope`
    /// (RFC 6750 §3.1), with the scope.
    InsufficientScope(Scopes),
    /// The user's last login is too old for a
    /// [`RequireRecentAuthentication`](super::RequireRecentAuthentication): 401 `insufficient_user_authentication`
    /// (RFC 9470 §3), with its maximum age.
    StaleAuthentication {
        /// The maximum age.
        max_age: Duration,
    },
    /// The session is not one of those that a [`RequirePredicate`](super::RequirePredicate) asks for: 403, without a
    /// challenge.
    Forbidden,
    /// The user has reached the session limit ([`ErrorKind::SessionLimit`]): 409.
    SessionLimit(Error),
    /// The store or the user loader failed, so the token could not be checked: 503 with `Retry-After`.
    Fault(Error),
    /// The program or its deployment has a mistake, for example a user detail that cannot be serialized as JSON, or a
    /// MySQL store that is not set up ([`ErrorKind::Config`]): 500.
    Internal(Error),
    /// The route has no [`SessionLayer`](super::SessionLayer) for this user type: 500.
    MissingLayer(MissingLayer),
}

/// An extractor or guard found no layer for its user type. `Display` names the types, for the log.
#[derive(Clone, Debug)]
pub struct MissingLayer(Box<Missing>);

/// Boxed, so that results with a [`Rejection`] are small.
#[derive(Clone, Debug)]
struct Missing {
    wanted_by: WantedBy,
    /// `None` for an extractor without a user type.
    user_type: Option<&'static str>,
    /// The layer around the handler, and its user type.
    present: Option<(&'static str, &'static str)>,
}

/// What looks for the extensions of a layer, with its name.
#[derive(Clone, Copy, Debug)]
pub(super) enum WantedBy {
    #[cfg(feature = "axum")]
    Extractor(&'static str),
    Guard(&'static str),
}

/// Marks the response to a [`Rejection`] that no layer has post-processed yet: it lacks the realm and the hook's
/// changes.
#[derive(Clone, Copy)]
pub(super) struct PendingPostProcess;

// Constants, so that header values are not validated for each response.
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
            Self::MissingToken | Self::InvalidToken | Self::StaleAuthentication { .. } => {
                StatusCode::UNAUTHORIZED
            }
            Self::InsufficientScope(_) | Self::Forbidden => StatusCode::FORBIDDEN,
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
            Self::InsufficientScope(scopes) => challenge(format_args!(
                r#"error="insufficient_scope", error_description="the session lacks a scope", scope="{scopes}""#
            )),
            Self::StaleAuthentication { max_age } => {
                let max_age = max_age.as_secs();
                challenge(format_args!(
                    r#"error="insufficient_user_authentication", error_description="the last login is too old", max_age="{max_age}""#
                ))
            }
            _ => None,
        }
    }

    /// The [status code](https://grpc.io/docs/guides/status-codes/) for a gRPC client.
    pub fn grpc_status(&self) -> u16 {
        match self {
            Self::MissingToken | Self::InvalidToken | Self::StaleAuthentication { .. } => 16, // UNAUTHENTICATED
            Self::InsufficientScope(_) | Self::Forbidden => 7, // PERMISSION_DENIED
            Self::InvalidRequest | Self::InvalidInput(_) => 3, // INVALID_ARGUMENT
            Self::SessionLimit(_) => 8,                        // RESOURCE_EXHAUSTED
            Self::Fault(_) => 14,                              // UNAVAILABLE
            Self::Internal(_) | Self::MissingLayer(_) => 13,   // INTERNAL
        }
    }

    /// The reason in the event for this rejection, if the token could not be read from the request.
    pub(super) fn refusal_reason(&self) -> Option<RefusalReason> {
        match self {
            Self::InvalidToken => Some(RefusalReason::Malformed),
            Self::InvalidRequest => Some(RefusalReason::SeveralTokens),
            _ => None,
        }
    }

    /// Whether an optional layer lets the request through as anonymous.
    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self, Self::MissingToken | Self::InvalidToken)
    }

    /// Converts an error of a check, which is never the client's fault.
    pub(super) fn from_check(error: Error) -> Self {
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

/// A challenge with the default realm and these parameters.
fn challenge(parameters: fmt::Arguments<'_>) -> Option<HeaderValue> {
    let challenge = format!(r#"Bearer realm="api", {parameters}"#);
    // Scopes are visible ASCII without quotes and backslashes.
    HeaderValue::try_from(challenge).ok()
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

/// The layer's response to this rejection, with the rejection's text as the body.
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

/// The response to the [`Rejection`] with this error: 503 with `Retry-After` for a [fault](Error::is_fault), 409 at the
/// session limit, 400 for invalid input, 500 for a mistake in the program or its deployment.
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
            Self::InsufficientScope(scopes) => write!(f, "the session lacks the scope {scopes}"),
            Self::StaleAuthentication { .. } => f.write_str("this needs a more recent login"),
            Self::Forbidden => f.write_str("this session may not do that"),
            Self::InvalidInput(error) | Self::SessionLimit(error) => error.fmt(f),
            Self::Fault(_) => f.write_str("sessions are temporarily unavailable; try again"),
            Self::Internal(_) | Self::MissingLayer(_) => {
                f.write_str("an internal error occurred in session handling")
            }
        }
    }
}

impl StdError for Rejection {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            // `Display` shows the error itself.
            Self::InvalidInput(error) | Self::SessionLimit(error) => error.source(),
            Self::Fault(error) | Self::Internal(error) => Some(error),
            Self::MissingLayer(missing) => Some(missing),
            _ => None,
        }
    }
}

impl MissingLayer {
    /// Of an extractor or guard with this user type.
    pub(super) fn new<D>(wanted_by: WantedBy) -> Self {
        Self(Box::new(Missing {
            wanted_by,
            user_type: Some(std::any::type_name::<D>()),
            present: None,
        }))
    }

    /// Of the extractor of claims, which has no user type.
    #[cfg(all(feature = "axum", feature = "jwt"))]
    pub(super) fn claims() -> Self {
        Self(Box::new(Missing {
            wanted_by: WantedBy::Extractor("VerifiedClaims"),
            user_type: None,
            present: None,
        }))
    }

    /// Adds the layer that is around the handler.
    pub(super) fn with_layer(&self, layer: &'static str, user_type: &'static str) -> Self {
        let mut missing = self.clone();
        missing.0.present = Some((layer, user_type));
        missing
    }

    /// Logs this as an error, because the response does not name the cause.
    pub(super) fn logged(self) -> Self {
        #[cfg(feature = "tracing")]
        tracing::error!("{self}");
        self
    }
}

impl fmt::Display for MissingLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.wanted_by, self.0.user_type) {
            (WantedBy::Guard(guard), wanted) => {
                let wanted = wanted.unwrap_or_default();
                write!(
                    f,
                    "`{guard}` found no `Session<{wanted}>`: put a layer with the user type `{wanted}` around it, or give it that of the layer"
                )
            }
            #[cfg(feature = "axum")]
            (WantedBy::Extractor(extractor), Some(wanted)) => write!(
                f,
                "the request has no `{extractor}<{wanted}>`: put a layer with the user type `{wanted}` on the route"
            ),
            #[cfg(feature = "axum")]
            (WantedBy::Extractor(extractor), None) => write!(
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
