//! The tower middleware: [`SessionLayer`], the extensions that it attaches to requests, and its responses.
//!
//! # Authentication of a request
//!
//! | the request has | required (the default) | [`optional`](SessionLayer::optional) | [RFC 6750 §3] error |
//! |---|---|---|---|
//! | a live token | inner service | inner service | |
//! | no token (a scheme other than `Bearer` counts as no token) | 401 | inner service, anonymous | none |
//! | a token that is malformed, unknown, expired or revoked | 401 | inner service, anonymous | `invalid_token` |
//! | more than one token: in two [sources](SessionLayer::token_sources), or twice in one (for two cookies, see [`TokenSource::cookie`]) | 400 | 400 | `invalid_request` |
//! | a token, but the store or the user loader fails | 503, or 500 if a MySQL store is not set up | the same | |
//!
//! Only a well-formed token causes a store call. A 503 carries `Retry-After`. A fault is never a 401 and never an
//! anonymous request, so an outage logs nobody out. Errors that no retry can cure are a 500: a user detail that is not
//! JSON, or a MySQL store that is not set up because a database, table or privilege is missing
//! ([`ErrorKind::Config`](crate::ErrorKind::Config)). A missing privilege in Redis is a 503
//! ([`ErrorKind::Store`](crate::ErrorKind::Store)). The layer marks the headers that may carry a token as
//! [sensitive](http::HeaderValue::set_sensitive), so that inner layers do not log them.
//!
//! The layer reads the token from the `Authorization` header, or from the configured
//! [`token_sources`](SessionLayer::token_sources): see [`TokenSource`].
//!
//! In axum, add a required layer with `Router::route_layer`. `Router::layer` also wraps the fallback, so unknown paths
//! get a 401 instead of a 404.
//!
//! # Refusals
//!
//! A request is refused by the layer itself, by an extractor, or by an [`Error`](crate::Error) that a handler returns.
//! The response has the status of its [`Rejection`], which is among the response's extensions. It passes through
//! [`on_rejection`](SessionLayer::on_rejection), which may replace the body, and it is `Cache-Control: no-store` unless
//! that hook sets the header. Response texts are for the client and name neither causes nor types. Outer layers can log
//! the cause from the [`source`](std::error::Error::source) of the rejection; a missing layer is also logged as a
//! `tracing` error.
//!
//! A layer that reads a `SessionCookie` (feature `cookie`) clears the cookie if its token is dead.
//!
//! gRPC clients need [`SessionLayer::grpc`]. They then get a *Trailers-Only* response with status 16
//! (`UNAUTHENTICATED`) for 401, 7 (`PERMISSION_DENIED`) for 403, 3 (`INVALID_ARGUMENT`) for 400, 8
//! (`RESOURCE_EXHAUSTED`) for 409, 14 (`UNAVAILABLE`) for 503 and 13 (`INTERNAL`) for 500. A `tonic::Request` has the
//! extensions of its HTTP request.
//!
//! # Caches
//!
//! Shared caches do not reuse the response to a request with `Authorization` unless the response allows it
//! ([RFC 9111 §3.5]). No such rule covers tokens in other places, or keeps a page for anonymous users from being served
//! to a user with a token. The layer therefore adds:
//!
//! | layer | `Cache-Control` | `Vary` |
//! |---|---|---|
//! | required, `Authorization` only | | `authorization`, if the response has a `Cache-Control` |
//! | optional, `Authorization` only | | `authorization` |
//! | with any other source | `private` | the header fields of its sources: `authorization`, `cookie`, … |
//!
//! The layer does not add `private` if the handler sets `public`, `s-maxage`, `private` or `no-store`. It does add
//! `private` to `must-revalidate` without any of these, because that also allows shared caches to reuse the response.
//!
//! A targeted field, such as `CDN-Cache-Control`, replaces `Cache-Control` for some shared caches ([RFC 9213 §2]). The
//! layer treats each field whose name ends in `-cache-control` by the same rules, so that `max-age=60` becomes
//! `max-age=60, private` where the table says `private`; a `public` or `s-maxage` in `Cache-Control` counts for these
//! fields, too. To `Surrogate-Control` it adds `no-store`, because surrogates do not know `private`. Refusals lose all
//! these fields. Fields with a syntax of their own, such as `X-Accel-Expires`, are left as they are.
//!
//! # What a handler gets
//!
//! A request with a live token reaches the inner service with a [`User<D>`](crate::User) and a [`Session<D>`] among its
//! extensions, an anonymous request with an [`Anonymous<D>`]. With feature `axum` these extractors are available:
//!
//! | extractor | for | under a required layer | under an optional layer |
//! |---|---|---|---|
//! | [`User<D>`](crate::User) | the user | always present | 401 (with the reason) without a live token |
//! | [`Session<D>`] | the user; times, metadata and scopes of the session; logout, refresh, a new token, waiting for the end of the session | always present | the same 401 |
//! | `Option` of either | pages for everybody | always `Some` | `None` without a live token |
//! | [`TokenManager<D>`](crate::TokenManager) | logins and all other operations | always present | always present |
//!
//! The guards, such as [`RequireScope`], refuse sessions before a handler is called.
//!
//! Extensions are found by their type, so layer and handler must use the same `D`. Without a layer for that `D` the
//! response is a 500, whose [`MissingLayer`] names the missing type and the one that is present: in the log with
//! feature `tracing`, and among the extensions of the response.
//!
//! # Example
//!
//! With hyper, or any other tower service over `http` types. A response body without `Default`, such as hyper's
//! `Incoming`, needs [`SessionLayer::either_body`].
//!
//! ```
//! use http::{Request, Response, StatusCode, header::AUTHORIZATION};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager, User};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let manager: TokenManager = TokenManager::new(MemoryStore::new());
//! let token = manager.set_token("alice", None).await?;
//!
//! let hello = service_fn(async |request: Request<String>| {
//!     let user: &User = request.extensions().get().expect("the layer is in required mode");
//!     Ok::<_, std::convert::Infallible>(Response::new(format!("hello {}", user.id())))
//! });
//! let service = SessionLayer::new(manager).layer(hello);
//!
//! let request = Request::builder()
//!     .header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
//!     .body(String::new())?;
//! assert_eq!(service.clone().oneshot(request).await?.body(), "hello alice");
//! let refused = service.oneshot(Request::new(String::new())).await?;
//! assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
//! # Ok(()) }
//! ```
//!
//! [RFC 6750 §3]: https://www.rfc-editor.org/rfc/rfc6750#section-3
//! [RFC 9111 §3.5]: https://www.rfc-editor.org/rfc/rfc9111#section-3.5
//! [RFC 9213 §2]: https://www.rfc-editor.org/rfc/rfc9213#section-2

#[cfg(feature = "cookie")]
#[cfg_attr(docsrs, doc(cfg(feature = "cookie")))]
pub use self::cookie::{SameSite, SessionCookie, SetCookie};
pub use self::{
    body::{RefusalBody, ResponseBody},
    future::ResponseFuture,
    guard::{
        Guard, GuardFuture, RequirePredicate, RequireRecentAuthentication, RequireScope,
        RequireSession,
    },
    hook::{EitherBody, OnRejection, PlainResponse},
    layer::SessionLayer,
    outcome::Anonymous,
    problem::ProblemJson,
    reject::{MissingLayer, Rejection},
    revoked::Revoked,
    service::SessionService,
    session::Session,
    source::{FindToken, RequestHead, TokenSource},
};
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::{
    jwt::{JwtLayer, JwtService},
    outcome::Unverified,
};

mod attach;
mod body;
mod cache;
#[cfg(feature = "cookie")]
mod cookie;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod grpc;
mod guard;
mod hook;
#[cfg(feature = "jwt")]
mod jwt;
mod layer;
mod mode;
mod outcome;
mod problem;
mod reject;
mod respond;
mod revoked;
mod service;
mod session;
mod settings;
mod source;
mod token_response;
