use std::{fmt, sync::Arc, time::Duration};

use http::Extensions;
use serde_json::Value;
use tower::Layer;

use super::{Check, Guard};
#[cfg(feature = "jwt")]
use crate::jwt::VerifiedClaims;
use crate::{
    Error, ErrorKind, RefusalReason, Scopes, Session,
    middleware::{Rejection, outcome, reject::WantedBy},
};

/// Lets only requests with a session through: under an [optional](super::super::SessionLayer::optional) layer, for the
/// routes that need a login.
///
/// A request without a live token is refused as by a layer that is not optional: 401 with the reason. Under a
/// `JwtLayer` (feature `jwt`), a verified token is let through.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager, User, middleware::RequireSession};
///
/// let manager: TokenManager = TokenManager::new(MemoryStore::new());
/// let app: Router = Router::new()
///     .route("/me", get(async |user: User| user.id().to_owned()))
///     .route_layer(RequireSession::new())
///     .route("/", get(async || "welcome"))
///     .layer(SessionLayer::new(manager).optional());
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is added to a service"]
pub struct RequireSession {
    find: Find,
}

/// Lets only sessions with a [scope](crate::TokenOptions::scopes) through.
///
/// Others are refused with 403 `insufficient_scope`
/// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)), requests without a live token with 401. Stack
/// several of these layers to ask for several scopes.
///
/// Under a `JwtLayer` (feature `jwt`), the scopes are those of the token (the claim `scope`, RFC 9068 §2.2.3): as of
/// its issue.
///
/// ```
/// use axum::{Router, routing::post};
/// use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager, middleware::RequireScope};
///
/// # fn app() -> Result<Router, tower_bearer_session::Error> {
/// let manager: TokenManager = TokenManager::new(MemoryStore::new());
/// let app = Router::new()
///     .route("/orders", post(async || "ordered"))
///     .route_layer(RequireScope::new("orders:write")?)
///     .route_layer(SessionLayer::new(manager));
/// # Ok(app) }
/// # app().unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is added to a service"]
pub struct RequireScope {
    find: Find,
    scope: Scopes,
}

/// Lets only sessions through whose user has proved recently who they are, by the store's clock.
///
/// Others are refused with 401 `insufficient_user_authentication` and `max_age`
/// ([RFC 9470 §3](https://www.rfc-editor.org/rfc/rfc9470#section-3)): the client asks for the password again, and the
/// service calls [`Session::replace_token`] with [`authenticated`](crate::ReplaceOptions::authenticated), or
/// [`Session::mark_authenticated`]. A replaced token is refused in its grace, too: whoever has copied it must not pass
/// because its owner has authenticated.
///
/// Under a `JwtLayer` (feature `jwt`), the age is that of the claim `auth_time` by the clock of the service, to the
/// second; a token without this claim is refused. [`Session::mark_authenticated`] does not change a token, so replace
/// it.
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::post};
/// use tower_bearer_session::{
///     MemoryStore, SessionLayer, TokenManager, middleware::RequireRecentAuthentication,
/// };
///
/// let manager: TokenManager = TokenManager::new(MemoryStore::new());
/// let app: Router = Router::new()
///     .route("/password", post(async || "changed"))
///     .route_layer(RequireRecentAuthentication::new(Duration::from_secs(300)))
///     .route_layer(SessionLayer::new(manager));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is added to a service"]
pub struct RequireRecentAuthentication {
    find: Find,
    max_age: Duration,
}

/// Lets only sessions through for which a predicate holds.
///
/// Others are refused with 403. A `JwtLayer` has no sessions: under it, the response is a 500. The
/// [detail](crate::User::detail) of the user may come from the cache: after a change of a role, call
/// [`TokenManager::delete_user`](crate::TokenManager::delete_user).
///
/// ```
/// use axum::{Router, routing::get};
/// use serde::{Deserialize, Serialize};
/// use tower_bearer_session::{
///     MemoryStore, Session, SessionLayer, TokenManager, middleware::RequirePredicate,
/// };
///
/// #[derive(Serialize, Deserialize)]
/// struct Profile {
///     is_admin: bool,
/// }
///
/// # fn app(manager: TokenManager<Profile>) {
/// let is_admin = |session: &Session<Profile>| session.user().detail().is_some_and(|user| user.is_admin);
/// let app: Router = Router::new()
///     .route("/admin", get(async || "hello"))
///     .route_layer(RequirePredicate::new(is_admin))
///     .route_layer(SessionLayer::new(manager));
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing until it is added to a service"]
pub struct RequirePredicate {
    check: Arc<Check>,
}

/// Finds the session of a request, for the layer with this name.
type Find = for<'a> fn(&'a Extensions, &'static str) -> Result<&'a dyn AnySession, Rejection>;

/// A [`Session`] of any user type, or what a layer without a store knows of one.
trait AnySession {
    fn scopes(&self) -> Scopes;
    /// `None` for a replaced token in its grace: the user may have authenticated with the new one.
    fn authentication_age(&self) -> Option<Duration>;
    /// Reports that the session was refused, if there is a manager to report it, and returns the rejection.
    fn refuse(&self, reason: RefusalReason, rejection: Rejection) -> Rejection;
}

impl<D> AnySession for Session<D> {
    fn scopes(&self) -> Scopes {
        self.scopes()
    }

    fn authentication_age(&self) -> Option<Duration> {
        self.has_current_token().then(|| self.authentication_age())
    }

    fn refuse(&self, reason: RefusalReason, rejection: Rejection) -> Rejection {
        self.report_refusal(reason);
        rejection
    }
}

/// As of the issue of the token, and by the clock of the service.
#[cfg(feature = "jwt")]
impl AnySession for VerifiedClaims {
    fn scopes(&self) -> Scopes {
        self.scopes().clone()
    }

    fn authentication_age(&self) -> Option<Duration> {
        let since = self.authenticated_at()?.elapsed();
        Some(since.unwrap_or_default())
    }

    fn refuse(&self, _: RefusalReason, rejection: Rejection) -> Rejection {
        rejection
    }
}

fn find<'a, D: Send + Sync + 'static>(
    extensions: &'a Extensions,
    layer: &'static str,
) -> Result<&'a dyn AnySession, Rejection> {
    #[cfg(feature = "jwt")]
    if let Some(claims) = outcome::claims::<D>(extensions) {
        return Ok(claims?);
    }
    let session = outcome::session::<D>(extensions, WantedBy::Guard(layer))?;
    Ok(session)
}

impl RequireSession {
    /// For sessions with the default user type; see [`user_type`](Self::user_type) for others.
    pub fn new() -> Self {
        Self {
            find: find::<Value>,
        }
    }

    /// Sets the `D` of the layer around this one: that of its [`Session<D>`](Session)s.
    pub fn user_type<D: Send + Sync + 'static>(mut self) -> Self {
        self.find = find::<D>;
        self
    }
}

impl Default for RequireSession {
    fn default() -> Self {
        Self::new()
    }
}

impl RequireScope {
    /// Asks for this scope, of sessions with the default user type; see [`user_type`](Self::user_type) for others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the text is not one scope (RFC 6749 §3.3).
    pub fn new(scope: &str) -> Result<Self, Error> {
        let scope = Scopes::new(&[scope]);
        let scope = scope.map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?;
        Ok(Self {
            find: find::<Value>,
            scope,
        })
    }

    /// Sets the `D` of the layer around this one: that of its [`Session<D>`](Session)s.
    pub fn user_type<D: Send + Sync + 'static>(mut self) -> Self {
        self.find = find::<D>;
        self
    }
}

impl RequireRecentAuthentication {
    /// Asks for an authentication that is at most `max_age` ago, of sessions with the default user type; see
    /// [`user_type`](Self::user_type) for others. The challenge has whole seconds.
    pub fn new(max_age: Duration) -> Self {
        Self {
            find: find::<Value>,
            max_age,
        }
    }

    /// Sets the `D` of the layer around this one: that of its [`Session<D>`](Session)s.
    pub fn user_type<D: Send + Sync + 'static>(mut self) -> Self {
        self.find = find::<D>;
        self
    }
}

impl RequirePredicate {
    /// Asks for sessions for which this predicate holds.
    pub fn new<D: Send + Sync + 'static>(
        predicate: impl Fn(&Session<D>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let check = move |extensions: &Extensions| {
            let session = outcome::session::<D>(extensions, WantedBy::Guard("RequirePredicate"))?;
            match predicate(session) {
                true => Ok(()),
                false => Err(session.refuse(RefusalReason::Forbidden, Rejection::Forbidden)),
            }
        };
        Self {
            check: Arc::new(check),
        }
    }

    /// Asks for verified claims for which this predicate holds, under a [`JwtLayer`](crate::middleware::JwtLayer) with
    /// the default user type: for services without a store.
    ///
    /// ```
    /// use tower_bearer_session::{jwt::VerifiedClaims, middleware::RequirePredicate};
    /// let of_acme = RequirePredicate::for_claims(|claims: &VerifiedClaims| {
    ///     claims.other().get("tenant").is_some_and(|tenant| tenant == "acme")
    /// });
    /// # let _ = of_acme;
    /// ```
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    pub fn for_claims(predicate: impl Fn(&VerifiedClaims) -> bool + Send + Sync + 'static) -> Self {
        let check = move |extensions: &Extensions| {
            let claims = outcome::claims::<Value>(extensions);
            let missing = || outcome::missing_layer::<Value>(WantedBy::Guard("RequirePredicate"));
            match predicate(claims.unwrap_or_else(|| Err(missing()))?) {
                true => Ok(()),
                false => Err(Rejection::Forbidden),
            }
        };
        Self {
            check: Arc::new(check),
        }
    }
}

impl<S> Layer<S> for RequireSession {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        let find = self.find;
        let check = move |extensions: &Extensions| find(extensions, "RequireSession").map(drop);
        Guard::new(inner, Arc::new(check))
    }
}

impl<S> Layer<S> for RequireScope {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        let Self { find, scope } = self.clone();
        let check = move |extensions: &Extensions| {
            let session = find(extensions, "RequireScope")?;
            if session.scopes().contains(scope.as_str()) {
                return Ok(());
            }
            let rejection = Rejection::InsufficientScope(scope.clone());
            Err(session.refuse(RefusalReason::InsufficientScope, rejection))
        };
        Guard::new(inner, Arc::new(check))
    }
}

impl<S> Layer<S> for RequireRecentAuthentication {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        let Self { find, max_age } = *self;
        let check = move |extensions: &Extensions| {
            let session = find(extensions, "RequireRecentAuthentication")?;
            if session
                .authentication_age()
                .is_some_and(|age| age <= max_age)
            {
                return Ok(());
            }
            let rejection = Rejection::StaleAuthentication { max_age };
            Err(session.refuse(RefusalReason::StaleAuthentication, rejection))
        };
        Guard::new(inner, Arc::new(check))
    }
}

impl<S> Layer<S> for RequirePredicate {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard::new(inner, Arc::clone(&self.check))
    }
}

impl fmt::Debug for RequirePredicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequirePredicate").finish_non_exhaustive()
    }
}
