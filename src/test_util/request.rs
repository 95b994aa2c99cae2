#[cfg(feature = "cookie")]
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Request, header::AUTHORIZATION, request::Builder};

#[cfg(feature = "cookie")]
use crate::middleware::SessionCookie;
use crate::{Token, TokenManager, TokenOptions};

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
    ) -> impl Future<Output = Self> {
        self.logged_in_with(manager, user_id, TokenOptions::new())
    }

    /// Starts a session of this user with these options, such as scopes, and sets the `Authorization` header to its
    /// token.
    ///
    /// # Panics
    ///
    /// If the manager cannot log the user in.
    #[allow(async_fn_in_trait, reason = "tests need no bounds on the future")]
    async fn logged_in_with<D>(
        mut self,
        manager: &TokenManager<D>,
        user_id: &str,
        options: TokenOptions,
    ) -> Self {
        let token = log_in(manager, user_id, options).await;
        if let Some(headers) = self.header_fields() {
            headers.insert(AUTHORIZATION, bearer_value(&token));
        }
        self
    }

    /// Starts a session of this user with these options, and sends its token in this cookie, beside other cookies of
    /// the request.
    ///
    /// # Panics
    ///
    /// If the manager cannot log the user in.
    #[cfg(feature = "cookie")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cookie")))]
    #[allow(async_fn_in_trait, reason = "tests need no bounds on the future")]
    async fn logged_in_by_cookie<D>(
        mut self,
        manager: &TokenManager<D>,
        user_id: &str,
        options: TokenOptions,
        cookie: &SessionCookie,
    ) -> Self {
        let token = log_in(manager, user_id, options).await;
        if let Some(headers) = self.header_fields() {
            add_cookie(headers, cookie, &token);
        }
        self
    }

    /// The header fields; `None` for a builder with an error, which `body` returns.
    fn header_fields(&mut self) -> Option<&mut HeaderMap>;
}

impl LoggedIn for Builder {
    fn header_fields(&mut self) -> Option<&mut HeaderMap> {
        self.headers_mut()
    }
}

impl<B> LoggedIn for Request<B> {
    fn header_fields(&mut self) -> Option<&mut HeaderMap> {
        Some(self.headers_mut())
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
    bearer_value(&log_in(manager, user_id, TokenOptions::new()).await)
}

async fn log_in<D>(manager: &TokenManager<D>, user_id: &str, options: TokenOptions) -> Token {
    match manager.set_token_with(user_id, options).await {
        Ok(issued) => issued.token,
        Err(error) => panic!("{user_id:?} cannot be logged in: {error:?}"),
    }
}

fn bearer_value(token: &Token) -> HeaderValue {
    secret(format!("Bearer {}", token.expose_secret()))
}

/// Adds a cookie to those of the request: HTTP/1.1 clients send one field with all of them.
#[cfg(feature = "cookie")]
fn add_cookie(headers: &mut HeaderMap, cookie: &SessionCookie, token: &Token) {
    let others = headers.get(COOKIE).and_then(|value| value.to_str().ok());
    let others = others.map_or_else(String::new, |others| format!("{others}; "));
    let value = format!("{others}{}={}", cookie.name(), token.expose_secret());
    headers.insert(COOKIE, secret(value));
}

fn secret(value: String) -> HeaderValue {
    let mut value = HeaderValue::try_from(value).expect("tokens are ASCII");
    value.set_sensitive(true);
    value
}
