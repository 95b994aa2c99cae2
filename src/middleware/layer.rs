use std::{fmt, sync::Arc, time::Duration};

use tower::Layer;

use super::{
    SessionService, TokenSource,
    hook::{EitherBody, PlainResponse},
    settings::Settings,
};
use crate::{Error, TokenManager};

/// Lets only requests with a live token through, and tells the inner service whose they are.
///
/// See the [module](crate::middleware) for how requests are judged.
#[must_use]
pub struct SessionLayer<D = serde_json::Value, R = PlainResponse> {
    manager: TokenManager<D>,
    settings: Settings<R>,
}

impl<D> SessionLayer<D> {
    /// A layer that requires a live token.
    pub fn new(manager: TokenManager<D>) -> Self {
        Self {
            manager,
            settings: Settings::new("SessionLayer"),
        }
    }
}

impl<D, R> SessionLayer<D, R> {
    /// Lets requests without a live token through, as anonymous ones: login routes and public pages are under
    /// such a layer. Routes that need a user say so with the extractor `Session<D>` or `User<D>`.
    ///
    /// A request whose token cannot be judged, because the store or the loader fails, is still answered
    /// with 503.
    pub fn optional(mut self) -> Self {
        self.settings.set_optional();
        self
    }

    /// Where to look for a token. Default: [`TokenSource::authorization`]. Without any, no request has a token.
    ///
    /// A request that has a token in more than one of them is refused with 400, even if it is the same token:
    /// [RFC 6750 §2](https://www.rfc-editor.org/rfc/rfc6750#section-2) forbids it.
    /// [`first_source_decides`](Self::first_source_decides) changes that.
    ///
    /// ```
    /// # use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};
    /// use tower_bearer_session::middleware::TokenSource;
    ///
    /// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
    /// let layer = SessionLayer::new(manager)
    ///     .token_sources([TokenSource::authorization(), TokenSource::cookie("session")?]);
    /// # let _ = layer;
    /// # Ok::<_, tower_bearer_session::Error>(())
    /// ```
    pub fn token_sources(mut self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        self.settings.set_sources(sources);
        self
    }

    /// Reads the [token sources](Self::token_sources) in their order, and lets the first one that has a token decide, even if
    /// that token is no good; the others are not read.
    ///
    /// It is for pages that set a token themselves while the browser sends a cookie along, which may be an old one that a
    /// script cannot remove. Name the cookie last, then, so that what the page chose comes before what the browser added.
    ///
    /// ```
    /// # use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};
    /// use tower_bearer_session::middleware::TokenSource;
    ///
    /// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
    /// let layer = SessionLayer::new(manager)
    ///     .token_sources([TokenSource::websocket_protocol(), TokenSource::cookie("session")?])
    ///     .first_source_decides();
    /// # let _ = layer;
    /// # Ok::<_, tower_bearer_session::Error>(())
    /// ```
    pub fn first_source_decides(mut self) -> Self {
        self.settings.sources.let_first_decide();
        self
    }

    /// Answers gRPC calls (`POST` requests of type `application/grpc`, `application/grpc+proto` and the like) that are
    /// refused in the way that gRPC clients understand. For tonic servers.
    ///
    /// Such an answer is *Trailers-Only*: status 200, [`grpc-status`](super::Rejection::grpc_status), and no body. **Do not use
    /// it on routes that something else than a gRPC client judges by the HTTP status**, such as those that nginx
    /// (`auth_request`), Traefik or Envoy asks for permission: there, a client that chooses the content type could turn
    /// a refusal into a success. By default the content type changes nothing, and every refusal is a 4xx or 5xx.
    ///
    /// It is about the refusals of this layer, and those of extractors and handlers under it: a layer further in decides on
    /// its own.
    pub fn grpc(mut self) -> Self {
        self.settings.responder.grpc = true;
        self
    }

    /// Sliding expiry: a request whose session has less than `remaining` left renews it, for as long as it
    /// was last good for, but never past its [absolute end](crate::TokenOptions::max_lifetime). Default: requests renew nothing.
    ///
    /// The request does not wait for that. A renewal that fails is an [event](crate::Event::Failed), and the next request
    /// tries again. What the request itself does to its session stands: a refresh for longer or shorter, a logout. While one is under way, the manager begins no other one for that session. A session that is used all the
    /// time is written once in every `ttl - remaining`; where `remaining` is not less than the ttl, half of that counts.
    pub fn refresh_below(mut self, remaining: Duration) -> Self {
        self.settings.refresh_below = Some(remaining);
        self
    }

    /// The realm in challenges (RFC 9110 §11.5), which tells a client which of its tokens to send. Default: `api`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for anything but printable ASCII characters, and for quotes and backslashes.
    pub fn realm(mut self, realm: &str) -> Result<Self, Error> {
        self.settings.responder.set_realm(realm)?;
        Ok(self)
    }

    /// Changes the responses to refused requests, those of extractors and those to errors that handlers return
    /// included. Default: an empty body, and from extractors and handlers a text.
    ///
    /// gRPC answers are not changed: they have no body.
    ///
    /// ```
    /// # use axum::{Router, body::Body, http::Response, routing::get};
    /// # use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};
    /// use tower_bearer_session::middleware::Rejection;
    ///
    /// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
    /// let layer = SessionLayer::new(manager).on_rejection(
    ///     |rejection: &Rejection, response: Response<Body>| response.map(|_| Body::from(format!("no: {rejection}"))),
    /// );
    /// let app: Router = Router::new().route("/", get(async || "hello")).route_layer(layer);
    /// ```
    pub fn on_rejection<T>(self, hook: T) -> SessionLayer<D, T> {
        SessionLayer {
            manager: self.manager,
            settings: self.settings.map_hook(|_| hook),
        }
    }

    /// Takes inner services with any response body, such as hyper's `Incoming`, by giving refusals a body of their own: the
    /// layer's response body is [`Either`](http_body_util::Either) of that of the inner service and `Full<Bytes>`.
    ///
    /// Without it the layer's response body is that of the inner service, which has to be `Default`; axum's, tonic's and most
    /// boxed ones are. Call it after [`on_rejection`](Self::on_rejection), whose hook then makes `Full<Bytes>`.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use hyper::body::Incoming;
    /// use tower::{BoxError, Layer, service_fn};
    /// # use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};
    /// use tower_bearer_session::middleware::ProblemJson;
    ///
    /// // Whatever answers with a body that comes from elsewhere.
    /// async fn forward(request: Request<Incoming>) -> Result<Response<Incoming>, BoxError> {
    ///     # unimplemented!("{request:?}")
    /// }
    ///
    /// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
    /// let gateway = SessionLayer::new(manager)
    ///     .on_rejection(ProblemJson)
    ///     .either_body()
    ///     .layer(service_fn(forward));
    /// # fn is_service<S: tower::Service<Request<Incoming>>>(_: S) {}
    /// # is_service(gateway);
    /// ```
    pub fn either_body(self) -> SessionLayer<D, EitherBody<R>> {
        SessionLayer {
            manager: self.manager,
            settings: self.settings.map_hook(EitherBody::new),
        }
    }
}

impl<S, D, R: Clone> Layer<S> for SessionLayer<D, R> {
    type Service = SessionService<S, D, R>;

    fn layer(&self, inner: S) -> Self::Service {
        let settings = Arc::new(self.settings.clone());
        SessionService::new(inner, self.manager.clone(), settings)
    }
}

impl<D, R: Clone> Clone for SessionLayer<D, R> {
    fn clone(&self) -> Self {
        Self {
            manager: self.manager.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl<D, R> fmt::Debug for SessionLayer<D, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt_with("SessionLayer", f, &self.manager)
    }
}
