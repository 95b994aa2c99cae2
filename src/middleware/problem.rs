use http::{HeaderValue, Response, header::CONTENT_TYPE};
use serde_json::json;

use super::{OnRejection, Rejection, hook::remove_representation};

/// A hook that gives responses to refused requests a body of type `application/problem+json`
/// ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).
///
/// It is for [`SessionLayer::on_rejection`](super::SessionLayer::on_rejection), and works with every body that is
/// `From<String>` and `Default`: axum's `Body`, `Full<Bytes>`, `String`. For others, such as `BoxBody`, set
/// [`either_body`](super::SessionLayer::either_body) on the layer as well.
///
/// ```
/// # use axum::{Router, routing::get};
/// # use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};
/// use tower_bearer_session::middleware::ProblemJson;
///
/// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
/// let app: Router = Router::new()
///     .route("/", get(async || "hello"))
///     .route_layer(SessionLayer::new(manager).on_rejection(ProblemJson));
/// ```
///
/// ```json
/// {"type":"about:blank","title":"Unauthorized","status":401,"detail":"a bearer token is required"}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ProblemJson;

impl<B: Default + From<String>> OnRejection<B> for ProblemJson {
    type Body = B;

    fn wrap(body: B) -> B {
        body
    }

    fn empty() -> B {
        B::default()
    }

    fn on_rejection(&self, rejection: &Rejection, mut response: Response<B>) -> Response<B> {
        let status = response.status();
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": rejection.to_string(),
        });
        let headers = response.headers_mut();
        remove_representation(headers);
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, media_type);
        *response.body_mut() = B::from(problem.to_string());
        response
    }
}
