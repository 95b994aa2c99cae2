use http::{HeaderValue, Request, header::AUTHORIZATION, request::Builder};

use crate::TokenManager;

/// Logs a user in, and attaches the token to a request.
///
/// ```
/// # use std::convert::Infallible;
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager, User, test_util::LoggedIn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let manager: TokenManager = TokenManager::new(MemoryStore::new());
/// # let me = tower::service_fn(async |request: Request<String>| {
/// #     let user: &User = request.extensions().get().expect("a user");
/// #     Ok::<_, Infallible>(Response::new(format!("you are {}", user.id())))
/// # });
/// # let app = SessionLayer::new(manager.clone()).layer(me);
/// // In place of an axum router, any service will do.
/// let request = Request::get("/me").logged_in_as(&manager, "alice").await.body(String::new())?;
/// let response = app.oneshot(request).await?;
/// assert_eq!(response.body(), "you are alice");
/// # Ok(()) }
/// ```
pub trait LoggedIn: Sized {
    /// Starts a session of this user, and sets the `Authorization` header to its token.
    ///
    /// # Panics
    ///
    /// If the manager cannot log the user in.
    fn logged_in_as<D>(
        self,
        manager: &TokenManager<D>,
        user_id: &str,
    ) -> impl Future<Output = Self>;
}

impl LoggedIn for Builder {
    async fn logged_in_as<D>(mut self, manager: &TokenManager<D>, user_id: &str) -> Self {
        // A builder without headers has an error, which `body` returns.
        let value = bearer(manager, user_id).await;
        if let Some(headers) = self.headers_mut() {
            headers.insert(AUTHORIZATION, value);
        }
        self
    }
}

impl<B> LoggedIn for Request<B> {
    async fn logged_in_as<D>(mut self, manager: &TokenManager<D>, user_id: &str) -> Self {
        let value = bearer(manager, user_id).await;
        self.headers_mut().insert(AUTHORIZATION, value);
        self
    }
}

/// Logs a user in, and returns the value of the `Authorization` header that carries the token.
///
/// HTTP clients take it as the value of a header.
///
/// ```
/// use http::{Request, header::AUTHORIZATION};
/// # use tower_bearer_session::{MemoryStore, TokenManager, test_util::bearer};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
/// let request = Request::get("http://127.0.0.1:3000/me")
///     .header(AUTHORIZATION, bearer(&manager, "alice").await)
///     .body(String::new())?;
/// # assert!(request.headers()[AUTHORIZATION].to_str()?.starts_with("Bearer tbs1."));
/// # Ok(()) }
/// ```
///
/// # Panics
///
/// If the manager cannot log the user in.
pub async fn bearer<D>(manager: &TokenManager<D>, user_id: &str) -> HeaderValue {
    let token = match manager.set_token(user_id, None).await {
        Ok(token) => token,
        Err(error) => panic!("{user_id:?} cannot be logged in: {error:?}"),
    };
    let value = format!("Bearer {}", token.expose_secret());
    let mut value = HeaderValue::try_from(value).expect("tokens are ASCII");
    value.set_sensitive(true);
    value
}
