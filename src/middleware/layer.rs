use std::{any::Any, fmt, sync::Arc, time::Duration};

use tower::Layer;

use super::{
    RequestHead, SessionService, TokenSource,
    hook::{EitherBody, PlainResponse},
    settings::Settings,
};
use crate::{Error, TokenManager, manager::EventContext};

/// Middleware that requires a live token, and attaches its session and user to the request.
///
/// See the [module](crate::middleware) for how requests are authenticated.
#[must_use]
pub struct SessionLayer<D = serde_json::Value, R = PlainResponse> {
    manager: TokenManager<D>,
    settings: Settings<R>,
}

impl<D> SessionLayer<D> {
    /// Creates a layer that requires a live token.
    pub fn new(manager: TokenManager<D>) -> Self {
        Self {
            manager,
            settings: Settings::new("SessionLayer"),
        }
    }
}

impl<D, R> SessionLayer<D, R> {
    /// Lets requests without a live token through as anonymous requests, for login routes and public pages.
    ///
    /// Routes that need a user take the extractor `Session<D>` or `User<D>`. A request whose token cannot be checked,
    /// because the store or the loader fails, still gets a 503.
    pub fn optional(mut self) -> Self {
        self.settings.set_optional();
        self
    }

    /// Sets the sources from which the token is read. Default: [`TokenSource::authorization`].
    ///
    /// A request with a token in more than one source is refused with 400, even if it is the same token:
    /// [RFC 6750 §2](https://www.rfc-editor.org/rfc/rfc6750#section-2) forbids that.
    /// [`first_source_decides`](Self::first_source_decides) changes this. Without any source, no request has a token.
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

    /// Uses the token of the first [source](Self::token_sources) that has one, even if it is invalid, and ignores the
    /// other sources.
    ///
    /// This is for pages that set a token themselves while the browser adds a cookie, perhaps an old one that scripts
    /// cannot remove. List the cookie last, so that the page's token takes precedence.
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

    /// Answers refused gRPC calls with a gRPC status, for tonic servers.
    ///
    /// A gRPC call is a `POST` request of type `application/grpc`, `application/grpc+proto` and the like. The response
    /// is *Trailers-Only*: status 200, [`grpc-status`](super::Rejection::grpc_status), and no body. **Do not use it on
    /// routes where anything but a gRPC client relies on the HTTP status**, such as those that nginx (`auth_request`),
    /// Traefik or Envoy asks for authorization: there, a client that chooses the content type could turn a refusal into
    /// a success. By default the content type changes nothing, and every refusal is a 4xx or 5xx.
    ///
    /// This applies to refusals by this layer and by the extractors and handlers under it. An inner layer has its own
    /// setting.
    pub fn grpc(mut self) -> Self {
        self.settings.responder.grpc = true;
        self
    }

    /// Enables sliding expiry: a request renews its session if less than `remaining` is left.
    ///
    /// A renewal repeats the session's last ttl, but never passes its
    /// [absolute end](crate::TokenOptions::max_lifetime). Default: requests renew nothing.
    ///
    /// The request does not wait for the renewal. A failed renewal is an [event](crate::EventKind::Failed), and the
    /// next request retries. A refresh or logout by the request itself takes precedence. While a renewal is in flight,
    /// the manager starts no other one for that session. A session in constant use is written once every `ttl -
    /// remaining`; if `remaining` is not less than the ttl, half of the ttl counts instead.
    pub fn refresh_below(mut self, remaining: Duration) -> Self {
        self.settings.renewal.below = Some(remaining);
        self
    }

    /// Notes when a session was last used, for lists of devices
    /// ([`TokenInfo::last_seen_at`](crate::TokenInfo::last_seen_at)): in the background, and about once per `interval`
    /// for each session, together with a [renewal](Self::refresh_below) if one is due. Times are noted in whole
    /// seconds. Default: nothing is noted.
    ///
    /// A failed write is an [event](crate::EventKind::Failed), and the next request tries again.
    pub fn note_last_seen(mut self, interval: Duration) -> Self {
        self.settings.renewal.seen = Some(interval);
        self
    }

    /// Asks the store for each request, and never takes the answer of a cache such as the near-cache of a `RedisStore`.
    /// Default: a cache may answer.
    ///
    /// It is for routes whose requests must not be served after an acknowledged logout, not even for a moment.
    ///
    /// ```
    /// # use axum::{Router, routing::{get, post}};
    /// # use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};
    /// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
    /// let layer = SessionLayer::new(manager);
    /// let app: Router = Router::new()
    ///     .route("/transfers", post(async || "transferred"))
    ///     .route_layer(layer.clone().always_ask())
    ///     .merge(Router::new().route("/news", get(async || "news")).route_layer(layer));
    /// ```
    pub fn always_ask(mut self) -> Self {
        self.settings.always_ask = true;
        self
    }

    /// Sets what is added to the [events](crate::Event) of a request as their [context](crate::Event::context), for
    /// audit logs: the address of the client, an id of the request. Default: nothing.
    ///
    /// The function is called for each request, before its token is read. The events are those of the layer and of all
    /// calls by the [`Session`](crate::Session) and the manager that handlers extract, also if these are completed
    /// after the request. A manager of the application's state has no context, and neither have the checks of
    /// [`Session::revoked`](crate::Session::revoked), which several requests may share.
    ///
    /// `ConnectInfo` is there if axum serves with `into_make_service_with_connect_info`. With
    /// [`TokenSource::query`](super::TokenSource::query), the URI contains the token.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use tower_bearer_session::{Event, MemoryStore, SessionLayer, TokenManager, middleware::RequestHead};
    ///
    /// struct Caller {
    ///     address: Option<SocketAddr>,
    ///     request_id: Option<String>,
    /// }
    ///
    /// let manager: TokenManager = TokenManager::builder(MemoryStore::new())
    ///     .on_event(|event: &Event<'_>| {
    ///         let caller = event.context::<Caller>();
    ///         let address = caller.and_then(|caller| caller.address);
    ///         let request_id = caller.and_then(|caller| caller.request_id.as_deref());
    ///         println!("{} {address:?} {request_id:?}", event.name());
    ///     })
    ///     .build()?;
    /// let layer = SessionLayer::new(manager).event_context(|request: &RequestHead<'_>| {
    ///     let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
    ///     let request_id = request.headers().get("x-request-id");
    ///     Caller {
    ///         address: address.map(|info| info.0),
    ///         request_id: request_id.and_then(|id| id.to_str().ok()).map(str::to_owned),
    ///     }
    /// });
    /// # let _ = layer;
    /// # Ok::<_, tower_bearer_session::Error>(())
    /// ```
    pub fn event_context<C: Any + Send + Sync>(
        mut self,
        context: impl Fn(&RequestHead<'_>) -> C + Send + Sync + 'static,
    ) -> Self {
        let make = move |request: &RequestHead<'_>| EventContext::new(context(request));
        self.settings.event_context = Some(Arc::new(make));
        self
    }

    /// Sets the realm in challenges (RFC 9110 §11.5), by which a client knows which token to send. Default: `api`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for quotes, backslashes, and characters that are not printable
    /// ASCII.
    pub fn realm(mut self, realm: &str) -> Result<Self, Error> {
        self.settings.responder.set_realm(realm)?;
        Ok(self)
    }

    /// Sets the `Retry-After` of the 503 that answers a fault, rounded up to whole seconds. Default: 1 second.
    ///
    /// It applies to faults in the check, and to those that extractors and handlers return.
    pub fn retry_after(mut self, time: Duration) -> Self {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        self.settings.responder.retry_after = Some(seconds.into());
        self
    }

    /// Sets a hook that changes the responses to refused requests, including those of extractors and of errors that
    /// handlers return.
    ///
    /// Default: an empty body from the layer, a text from extractors and handlers. The hook does not see gRPC
    /// responses, which have no body.
    ///
    /// ```
    /// # use axum::{Router, body::Body, http::Response, routing::get};
    /// # use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};
    /// use tower_bearer_session::middleware::Rejection;
    ///
    /// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
    /// let layer = SessionLayer::new(manager).on_rejection(
    ///     |rejection: &Rejection, response: Response<Body>| {
    ///         response.map(|_| Body::from(format!("no: {rejection}")))
    ///     },
    /// );
    /// let app: Router = Router::new().route("/", get(async || "hello")).route_layer(layer);
    /// ```
    pub fn on_rejection<T>(self, hook: T) -> SessionLayer<D, T> {
        SessionLayer {
            manager: self.manager,
            settings: self.settings.map_hook(|_| hook),
        }
    }

    /// Supports inner services with any response body, such as hyper's `Incoming`.
    ///
    /// The layer's response body becomes a [`ResponseBody`](super::ResponseBody): that of the inner service, whose data
    /// are [`Bytes`](bytes::Bytes), or a [`RefusalBody`](super::RefusalBody). Without this setting it is the body of
    /// the inner service, which must be `Default`, as those of axum and tonic and most boxed bodies are. Call this
    /// method after [`on_rejection`](Self::on_rejection), whose hook then makes a `RefusalBody`.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use hyper::body::Incoming;
    /// use tower::{BoxError, Layer, service_fn};
    /// # use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};
    /// use tower_bearer_session::middleware::ProblemJson;
    ///
    /// // Passes on the body of another server's response.
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
