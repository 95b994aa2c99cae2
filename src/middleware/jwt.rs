use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

#[cfg(feature = "axum")]
use http::request::Parts;
use http::{Request, Response};
use tower::{Layer, Service};

#[cfg(feature = "axum")]
use super::{MissingLayer, extract::optional, outcome::NoClaims};
use super::{
    Rejection, TokenSource,
    future::ResponseFuture,
    hook::{EitherBody, OnRejection, PlainResponse},
    mode::Mode,
    outcome::insert_offline_auth_extensions,
    settings::Settings,
};
use crate::{
    Error, User,
    jwt::{JwtVerifier, VerifiedClaims},
    user::UserToken,
};

/// Middleware that requires a verified JWT, for services without a store.
///
/// It checks the token alone. **A logout has no effect before the token expires**: where that is too late, use
/// [`SessionLayer`](super::SessionLayer). A request with an accepted token has a [`User<D>`](crate::User) without
/// detail and the [`VerifiedClaims`] of the token among its extensions, but no [`Session`](super::Session). Refusals
/// and token sources are those of `SessionLayer`. The guards [`RequireSession`](super::RequireSession),
/// [`RequireScope`](super::RequireScope) and [`RequireRecentAuthentication`](super::RequireRecentAuthentication) work
/// under it, by the claims of the token, and so does
/// [`RequirePredicate::for_claims`](super::RequirePredicate::for_claims). It has no manager, and so reports no events:
/// the response to a refused request has its [`Rejection`](super::Rejection) among the extensions. In optional mode, a
/// request without an accepted token has an [`Unverified<D>`](super::Unverified) among its extensions.
///
/// ```
/// # use axum::{Router, routing::get};
/// use tower_bearer_session::{
///     User,
///     jwt::{JwtVerifier, VerifiedClaims},
///     middleware::{JwtLayer, RequireScope},
/// };
///
/// # fn app(jwk_set: &str) -> Result<Router, tower_bearer_session::Error> {
/// let verifier = JwtVerifier::from_jwk_set(jwk_set)?.audience("shop").build()?;
/// let app = Router::new()
///     .route("/orders", get(async |claims: VerifiedClaims| format!("of {:?}", claims.other().get("tenant"))))
///     .route_layer(RequireScope::new("orders:read")?)
///     .route("/", get(async |user: User| format!("hello {}", user.id())))
///     .route_layer(JwtLayer::new(verifier));
/// # Ok(app) }
/// ```
#[must_use]
pub struct JwtLayer<D = serde_json::Value, R = PlainResponse> {
    verifier: JwtVerifier,
    settings: Settings<R>,
    user_type: PhantomData<fn() -> D>,
}

impl JwtLayer {
    /// Creates a layer that requires a token which this verifier accepts.
    pub fn new(verifier: JwtVerifier) -> Self {
        Self {
            verifier,
            settings: Settings::new("JwtLayer"),
            user_type: PhantomData,
        }
    }
}

impl<D, R> JwtLayer<D, R> {
    /// Sets the `D` of the [`User<D>`](crate::User) that handlers get, so that the same handlers work under a
    /// [`SessionLayer`](super::SessionLayer).
    pub fn user_type<T>(self) -> JwtLayer<T, R> {
        JwtLayer {
            verifier: self.verifier,
            settings: self.settings,
            user_type: PhantomData,
        }
    }

    /// See [`SessionLayer::optional`](super::SessionLayer::optional).
    pub fn optional(mut self) -> Self {
        self.settings.set_optional();
        self
    }

    /// See [`SessionLayer::token_sources`](super::SessionLayer::token_sources).
    pub fn token_sources(mut self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        self.settings.set_sources(sources);
        self
    }

    /// See [`SessionLayer::first_source_decides`](super::SessionLayer::first_source_decides).
    pub fn first_source_decides(mut self) -> Self {
        self.settings.sources.let_first_decide();
        self
    }

    /// See [`SessionLayer::grpc`](super::SessionLayer::grpc).
    pub fn grpc(mut self) -> Self {
        self.settings.responder.grpc = true;
        self
    }

    /// See [`SessionLayer::realm`](super::SessionLayer::realm).
    ///
    /// # Errors
    ///
    /// Those of [`SessionLayer::realm`](super::SessionLayer::realm).
    pub fn realm(mut self, realm: &str) -> Result<Self, Error> {
        self.settings.responder.set_realm(realm)?;
        Ok(self)
    }

    /// See [`SessionLayer::on_rejection`](super::SessionLayer::on_rejection).
    pub fn on_rejection<T>(self, hook: T) -> JwtLayer<D, T> {
        JwtLayer {
            verifier: self.verifier,
            settings: self.settings.map_hook(|_| hook),
            user_type: PhantomData,
        }
    }

    /// See [`SessionLayer::either_body`](super::SessionLayer::either_body).
    pub fn either_body(self) -> JwtLayer<D, EitherBody<R>> {
        JwtLayer {
            verifier: self.verifier,
            settings: self.settings.map_hook(EitherBody::new),
            user_type: PhantomData,
        }
    }
}

impl<S, D, R: Clone> Layer<S> for JwtLayer<D, R> {
    type Service = JwtService<S, D, R>;

    fn layer(&self, inner: S) -> Self::Service {
        JwtService {
            inner,
            verifier: self.verifier.clone(),
            settings: Arc::new(self.settings.clone()),
            user_type: PhantomData,
        }
    }
}

/// The tower service of [`JwtLayer`].
pub struct JwtService<S, D = serde_json::Value, R = PlainResponse> {
    inner: S,
    verifier: JwtVerifier,
    settings: Arc<Settings<R>>,
    user_type: PhantomData<fn() -> D>,
}

impl<S, D, R, ReqBody, ResBody> Service<Request<ReqBody>> for JwtService<S, D, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    D: Send + Sync + 'static,
    R: OnRejection<ResBody>,
{
    type Response = Response<R::Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S, D, ReqBody, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let settings = &self.settings;
        let (outcome, post) = settings.read_token(&mut request, |found| {
            let claims = self.verifier.verify(found?);
            let claims = claims.map_err(|_| Rejection::InvalidToken)?;
            Ok::<(User<D>, VerifiedClaims), Rejection>((user(&claims), claims))
        });
        match outcome {
            Err(rejection) if settings.mode == Mode::Required || !rejection.is_anonymous() => {
                ResponseFuture::refuse(rejection, post)
            }
            outcome => {
                insert_offline_auth_extensions(request.extensions_mut(), outcome);
                ResponseFuture::call(self.inner.call(request), post)
            }
        }
    }
}

fn user<D>(claims: &VerifiedClaims) -> User<D> {
    let (now, expires_at) = (SystemTime::now(), claims.expires_at());
    let token = UserToken {
        session: *claims.token_id(),
        remaining: expires_at.duration_since(now).unwrap_or_default(),
        expires_at,
    };
    User::new(claims.shared_user_id(), None, Some(token))
}

/// The claims of the request's token, under a [`JwtLayer`].
#[cfg(feature = "axum")]
impl<S: Sync> axum_core::extract::FromRequestParts<S> for VerifiedClaims {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        claims(parts)
    }
}

/// `None` without an accepted token, under a [`JwtLayer`] in optional mode.
#[cfg(feature = "axum")]
impl<S: Sync> axum_core::extract::OptionalFromRequestParts<S> for VerifiedClaims {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        optional(claims(parts))
    }
}

#[cfg(feature = "axum")]
fn claims(parts: &Parts) -> Result<VerifiedClaims, Rejection> {
    let claims = parts.extensions.get::<VerifiedClaims>().cloned();
    claims.ok_or_else(|| match parts.extensions.get::<NoClaims>() {
        Some(NoClaims(reason)) => reason.clone(),
        None => Rejection::MissingLayer(MissingLayer::claims().logged()),
    })
}

impl<D, R: Clone> Clone for JwtLayer<D, R> {
    fn clone(&self) -> Self {
        Self {
            verifier: self.verifier.clone(),
            settings: self.settings.clone(),
            user_type: PhantomData,
        }
    }
}

impl<S: Clone, D, R> Clone for JwtService<S, D, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            verifier: self.verifier.clone(),
            settings: Arc::clone(&self.settings),
            user_type: PhantomData,
        }
    }
}

impl<D, R> fmt::Debug for JwtLayer<D, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt_with("JwtLayer", f, &self.verifier)
    }
}

impl<S, D, R> fmt::Debug for JwtService<S, D, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt_with("JwtService", f, &self.verifier)
    }
}
