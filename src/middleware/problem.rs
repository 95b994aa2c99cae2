use axum_core::body::Body;
use http::{
    HeaderValue, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde_json::json;

use super::{OnRejection, Rejection};

/// Responses to refused requests with a body of type `application/problem+json`
/// ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)); for [`SessionLayer::on_rejection`](super::SessionLayer::on_rejection).
///
/// ```
/// # use axum::{Router, routing::get};
/// # use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};
/// use tower_bearer_session::middleware::ProblemJson;
///
/// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
/// let app: Router = Router::new()
///     .route("/", get(async || "hello"))
///     .layer(SessionLayer::new(manager).on_rejection(ProblemJson));
/// ```
///
/// ```json
/// {"type":"about:blank","title":"Unauthorized","status":401,"detail":"a bearer token is required"}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ProblemJson;

impl OnRejection<Body> for ProblemJson {
    fn on_rejection(&self, rejection: &Rejection, mut response: Response<Body>) -> Response<Body> {
        let status = response.status();
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": rejection.to_string(),
        });
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, kind);
        *response.body_mut() = Body::from(problem.to_string());
        response
    }
}
