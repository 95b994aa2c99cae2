//! The tower middleware: [`SessionLayer`], what it puts into requests, and what it answers.
//!
//! # How a request is judged
//!
//! | the request has | required (the default) | [`optional`](SessionLayer::optional) | [RFC 6750 §3] error |
//! |---|---|---|---|
//! | a live token | inner service | inner service | |
//! | no token (another scheme than `Bearer` is none) | 401 | inner service, anonymous | none |
//! | a token that is malformed, unknown, expired or revoked | 401 | inner service, anonymous | `invalid_token` |
//! | more than one token: in two of the [sources](SessionLayer::token_sources), or twice in one (two cookies: see [`TokenSource::cookie`]) | 400 | 400 | `invalid_request` |
//! | a token, but the store or the user loader fails | 503 | 503 | |
//!
//! Only a well-formed token costs a store call. A 503 carries `Retry-After`; it is never a 401 and never
//! anonymous, so that an outage logs nobody out. (An error that no repetition can cure, such as a user detail that
//! is no JSON, is a 500.) The layer marks the headers that may have a token as
//! [sensitive](http::HeaderValue::set_sensitive), so that layers further in do not log them.
//!
//! A token is looked for in the `Authorization` header, or wherever [`token_sources`](SessionLayer::token_sources)
//! says: see [`TokenSource`].
//!
//! In axum, put a required layer on routes by `Router::route_layer`: by `layer` it is on the fallback as well, and unknown
//! paths are answered with 401 in place of 404.
//!
//! # Refusals
//!
//! A refusal is the layer's own, or that of an extractor or an [`Error`](crate::Error) that a handler returns. All of them
//! have the status of their [`Rejection`], which is in the response's extensions; pass through
//! [`on_rejection`](SessionLayer::on_rejection), which may give them another body; and are `Cache-Control: no-store` unless
//! that hook says otherwise. Texts are for the client: they name neither causes nor types. Those are in the
//! [`source`](std::error::Error::source) of the rejection, for layers further out that log it; a forgotten layer is also an
//! error of `tracing`.
//!
//! A gRPC client needs [`SessionLayer::grpc`]. It then gets a *Trailers-Only* response with status 16 (`UNAUTHENTICATED`)
//! in place of 401, 3 (`INVALID_ARGUMENT`) of 400, 8 (`RESOURCE_EXHAUSTED`) of 409, 14 (`UNAVAILABLE`) of 503 and 13
//! (`INTERNAL`) of 500. The extensions of the HTTP request are those of `tonic::Request`.
//!
//! # Caches
//!
//! Shared caches do not reuse the response to a request with `Authorization` unless the response allows it
//! ([RFC 9111 §3.5]), but nothing like that protects tokens in other places, nor those who have one from the pages of those
//! who have none. So the layer adds:
//!
//! | layer | `Cache-Control` | `Vary` |
//! |---|---|---|
//! | required, `Authorization` only | | `authorization`, if the response has a `Cache-Control` |
//! | optional, `Authorization` only | | `authorization` |
//! | with any other source | `private` | the header fields of its sources: `authorization`, `cookie`, … |
//!
//! `private` is not added where the handler says `public`, `s-maxage`, `private` or `no-store`: that choice stands. It is
//! added to `must-revalidate` alone, which allows shared caches to reuse the response, too.
//!
//! # What a handler gets
//!
//! A request with a live token reaches the inner service with a [`User<D>`](crate::User) and a [`Session<D>`] in
//! its extensions, an anonymous one with an [`Anonymous<D>`]. With feature `axum` both are extractors, too:
//!
//! | extractor | for | under a required layer | under an optional layer |
//! |---|---|---|---|
//! | [`User<D>`](crate::User) | who it is | always there | 401 (that says why) without a live token |
//! | [`Session<D>`] | that, and to log out, refresh, wait for the end | always there | the same 401 |
//! | `Option` of both | pages for everybody | always `Some` | `None` without a live token |
//! | [`TokenManager<D>`](crate::TokenManager) | to log in, and all the rest | always there | always there |
//!
//! Extensions are found by their type, so `D` must be the same in layer and handler. Without a layer for that `D` the
//! answer is a 500, and the log names the type that is missing and the one that is there ([`MissingLayer`]).
//!
//! # Example
//!
//! With hyper, or any other tower service over `http` types. A response body that cannot be empty, such as hyper's
//! `Incoming`, needs [`SessionLayer::either_body`].
//!
//! ```
//! use http::{Request, Response, StatusCode, header::AUTHORIZATION};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager, User};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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

pub use self::{
    future::ResponseFuture,
    hook::{EitherBody, OnRejection, PlainResponse},
    layer::SessionLayer,
    problem::ProblemJson,
    reject::{MissingLayer, Rejection},
    revoked::Revoked,
    service::SessionService,
    session::{Anonymous, Session},
    source::{FindToken, RequestHead, TokenSource},
};
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::{
    jwt::{JwtLayer, JwtService},
    session::Unverified,
};

mod attach;
mod cache;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod grpc;
mod hook;
#[cfg(feature = "jwt")]
mod jwt;
mod layer;
mod mode;
mod problem;
mod reject;
mod respond;
mod revoked;
mod service;
mod session;
mod settings;
mod source;
