use std::{fmt, sync::Arc, time::Duration};

use tower::Layer;

use super::{
    SessionService, TokenSource,
    respond::{PlainResponse, Responder},
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

/// What is the same for all requests.
#[derive(Clone, Debug)]
pub(super) struct Settings<R> {
    pub(super) mode: Mode,
    pub(super) sources: Arc<[TokenSource]>,
    /// Sessions with less than this left are renewed.
    pub(super) refresh_below: Option<Duration>,
    pub(super) responder: Responder<R>,
}

/// What happens to a request without a live token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Required,
    Optional,
}

impl<D> SessionLayer<D> {
    /// A layer that requires a live token.
    pub fn new(manager: TokenManager<D>) -> Self {
        Self {
            manager,
            settings: Settings::new(),
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
        self.settings.mode = Mode::Optional;
        self
    }

    /// Where to look for a token. Default: [`TokenSource::authorization`].
    ///
    /// They are asked in this order, and the first one that has a token decides, even if that token is no good:
    /// the others are not looked at. Without any, no request has a token.
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
        self.settings.sources = sources.into_iter().collect();
        self
    }

    /// Sliding expiry: a request whose session has less than `remaining` left renews it, for as long as it
    /// was last good for, but never past its [absolute end](crate::TokenOptions::max_lifetime). Default: requests renew nothing.
    ///
    /// The request does not wait for that, and nobody is told of a renewal that fails: the next request tries
    /// again. While one is under way, the manager begins no other one for that session. A session that is used all the
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

    /// Changes the responses to refused requests, those of the extractors included. Default: an empty body,
    /// and from extractors a text.
    ///
    /// Responses to gRPC calls are not changed: they have no body.
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
    /// let app: Router = Router::new().route("/", get(async || "hello")).layer(layer);
    /// ```
    pub fn on_rejection<T>(self, hook: T) -> SessionLayer<D, T> {
        SessionLayer {
            manager: self.manager,
            settings: self.settings.with_hook(hook),
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

impl Settings<PlainResponse> {
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::Required,
            sources: Arc::new([TokenSource::authorization()]),
            refresh_below: None,
            responder: Responder::new(),
        }
    }
}

impl<R> Settings<R> {
    pub(super) fn with_hook<T>(self, hook: T) -> Settings<T> {
        Settings {
            mode: self.mode,
            sources: self.sources,
            refresh_below: self.refresh_below,
            responder: self.responder.with_hook(hook),
        }
    }

    /// What there is to see of a layer or its service.
    pub(super) fn fmt_with(
        &self,
        name: &str,
        f: &mut fmt::Formatter<'_>,
        judge: &dyn fmt::Debug,
    ) -> fmt::Result {
        f.debug_struct(name)
            .field("judge", judge)
            .field("mode", &self.mode)
            .field("token_sources", &self.sources)
            .field("refresh_below", &self.refresh_below)
            .finish_non_exhaustive()
    }
}
