use std::{sync::Arc, time::Duration};

use cookie::{Cookie, time};
use http::{HeaderMap, HeaderValue, header::SET_COOKIE};

use super::TokenSource;
use crate::{Error, ErrorKind, IssuedToken};

/// The longest time for which browsers keep a cookie (RFC 6265bis §5.5).
const MAX_AGE: Duration = Duration::from_secs(400 * 24 * 3600);

/// The prefixes by which browsers enforce attributes of a cookie, whatever their case (RFC 6265bis §4.1.3).
const PREFIXES: [&str; 2] = ["__Host-", "__Secure-"];

/// A cookie that carries the token of a session: its name and attributes.
///
/// [`set`](Self::set) makes the `Set-Cookie` of a login or of a replaced token, [`clear`](Self::clear) that of a
/// logout, and [`source`](Self::source) lets a layer read the cookie. The layer also clears a cookie whose token is
/// dead.
///
/// The cookie is `__Host-<name>; HttpOnly; SameSite=Lax; Secure; Path=/` unless you configure it otherwise: no script
/// can read it, it goes to no other host, no other host can set it, and browsers do not send it with `POST` requests
/// from other sites.
///
/// Its `Max-Age` is the time until the [absolute end](crate::TokenOptions::max_lifetime) of the session, or, without
/// one, the 400 days that browsers allow ([RFC 6265bis §5.5]). So a cookie outlives its session, even if the session is
/// refreshed, and the store alone decides when a session ends.
///
/// ```
/// use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
/// # use tower_bearer_session::MemoryStore;
/// use tower_bearer_session::{
///     Error, Session, SessionLayer, TokenManager, TokenOptions, middleware::SessionCookie,
/// };
///
/// async fn log_in(
///     State(cookie): State<SessionCookie>,
///     manager: TokenManager,
/// ) -> Result<impl IntoResponse, Error> {
///     // Check the password here.
///     let issued = manager.set_token_with("alice", TokenOptions::new()).await?;
///     Ok((cookie.set(&issued), "hello alice"))
/// }
///
/// async fn log_out(
///     State(cookie): State<SessionCookie>,
///     session: Session,
/// ) -> Result<impl IntoResponse, Error> {
///     session.log_out().await?;
///     Ok((cookie.clear(), StatusCode::NO_CONTENT))
/// }
///
/// # fn app() -> Result<Router, Error> {
/// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
/// let cookie = SessionCookie::new("session")?;
/// let layer = SessionLayer::new(manager).optional().token_sources([cookie.source()]);
/// let app = Router::new()
///     .route("/login", post(log_in))
///     .route("/logout", post(log_out))
///     .layer(layer)
///     .with_state(cookie);
/// # Ok(app) }
/// # app().unwrap();
/// ```
///
/// Cloning is cheap. The [guide](crate::guide::cookies) says more about cookies.
///
/// [RFC 6265bis §5.5]: https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#section-5.5
#[derive(Clone, Debug)]
#[must_use]
pub struct SessionCookie(Arc<Attributes>);

#[derive(Clone, Debug)]
struct Attributes {
    /// The name with its prefix.
    name: String,
    bare_name: Box<str>,
    same_site: SameSite,
    domain: Option<Box<str>>,
    path: Box<str>,
    secure: bool,
    persistent: bool,
}

/// With which requests from other sites a browser sends a cookie
/// ([RFC 6265bis §5.6.7](https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#section-5.6.7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// With none. A user who follows a link from another site is logged out on the first page.
    Strict,
    /// With those by which a user follows a link (`GET`).
    #[default]
    Lax,
    /// With all, as an embedded page needs it. The application must defend itself against cross-site requests alone.
    None,
}

impl SessionCookie {
    /// A cookie with the name `__Host-<name>`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the name is not valid for a cookie (RFC 6265bis §4.1.1), or has a prefix already.
    pub fn new(name: &str) -> Result<Self, Error> {
        TokenSource::cookie(name)?;
        let has = |prefix: &&str| {
            let start = name.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if PREFIXES.iter().any(has) {
            let message =
                format!("leave out the prefix, which depends on the attributes: {name:?}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let attributes = Attributes {
            name: String::new(),
            bare_name: name.into(),
            same_site: SameSite::default(),
            domain: None,
            path: "/".into(),
            secure: true,
            persistent: true,
        };
        Ok(Self(Arc::new(attributes)).with(|_| ()))
    }

    /// Sets `SameSite`. Default: [`SameSite::Lax`].
    pub fn same_site(self, same_site: SameSite) -> Self {
        self.with(|attributes| attributes.same_site = same_site)
    }

    /// Sends the cookie to all hosts of a domain as well, for services that share a login.
    ///
    /// Its name becomes `__Secure-<name>`: **any host of the domain can then set a cookie of that name**, so every one
    /// of them must be trusted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if this is not a host name.
    pub fn domain(self, domain: &str) -> Result<Self, Error> {
        let is_label = |label: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty() && label.bytes().all(fits)
        };
        if !domain.split('.').all(is_label) {
            let message = format!("this is not a valid domain of a cookie: {domain:?}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(self.with(|attributes| attributes.domain = Some(domain.into())))
    }

    /// Sends the cookie only with requests below a path. Its name becomes `__Secure-<name>`, unless the path is `/`.
    ///
    /// This is no protection from other applications on the same host (RFC 6265bis §8.6).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the path does not begin with `/`, or has characters other than visible ASCII without
    /// `;`.
    pub fn path(self, path: &str) -> Result<Self, Error> {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        if !path.starts_with('/') || !path.bytes().all(fits) {
            let message = format!("this is not a valid path of a cookie: {path:?}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(self.with(|attributes| attributes.path = path.into()))
    }

    /// Leaves out `Max-Age`, so that the browser forgets the cookie when it is closed. (Browsers that restore tabs keep
    /// it.)
    pub fn until_browser_closes(self) -> Self {
        self.with(|attributes| attributes.persistent = false)
    }

    /// Leaves out the prefix of the name and `Secure`. **For development over plain HTTP only**: over HTTP, everybody
    /// on the network can read and set the cookie.
    ///
    /// Chromium accepts the default cookie from `http://127.0.0.1`, too, and needs no such setting there.
    pub fn insecure_for_development(self) -> Self {
        self.with(|attributes| attributes.secure = false)
    }

    /// The name of the cookie, with its prefix.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The source that reads this cookie, for [`token_sources`](super::SessionLayer::token_sources).
    ///
    /// A [`SessionLayer`](super::SessionLayer) with this source also [clears](Self::clear) a cookie whose token is dead
    /// (malformed, unknown, expired or revoked), whether it refuses the request or treats it as anonymous. It does not
    /// do so if
    ///
    /// - the token could not be checked, because the store or the user loader failed,
    /// - the loader did not find the user of a live session, or a JWT is not verified,
    /// - the request has another token, or several cookies of this name that differ,
    /// - the response already sets this cookie,
    /// - the response is a gRPC one, or the handler lets shared caches store it (`public` or `s-maxage`).
    ///
    /// A `JwtLayer` only reads the cookie.
    pub fn source(&self) -> TokenSource {
        TokenSource::session_cookie(self.name(), self.clear().into())
    }

    /// Puts a token into the cookie: after a login, and after a
    /// [replacement](crate::TokenManager::replace_token) of the token that was there.
    ///
    /// The token comes from [`TokenManager::set_token_with`](crate::TokenManager::set_token_with) or a replacement. A
    /// login of a browser that has a session already starts another one: log the old one out if it should not stay in
    /// the list of devices.
    ///
    /// The value is marked as [sensitive](HeaderValue::set_sensitive), so that it is not logged. Browsers ignore a
    /// cookie whose name and value have more than 4096 bytes, which only a JWT can reach.
    pub fn set(&self, issued: &IssuedToken) -> SetCookie {
        let mut cookie = self.with_value(issued.token.expose_secret());
        if self.0.persistent {
            cookie.set_max_age(time::Duration::seconds(max_age(issued)));
        }
        let mut value = header_value(&cookie);
        value.set_sensitive(true);
        SetCookie(value)
    }

    /// Removes the cookie from the browser: after a logout.
    pub fn clear(&self) -> SetCookie {
        let mut cookie = self.with_value("");
        cookie.set_max_age(time::Duration::ZERO);
        SetCookie(header_value(&cookie))
    }

    /// Changes the attributes, and the prefix with them.
    fn with(mut self, change: impl FnOnce(&mut Attributes)) -> Self {
        let attributes = Arc::make_mut(&mut self.0);
        change(attributes);
        let [host, secure] = PREFIXES;
        let prefix = match (attributes.secure, &attributes.domain, &*attributes.path) {
            (false, ..) => "",
            (true, None, "/") => host,
            (true, ..) => secure,
        };
        attributes.name = format!("{prefix}{}", attributes.bare_name);
        self
    }

    fn with_value<'a>(&'a self, value: &'a str) -> Cookie<'a> {
        let attributes = &*self.0;
        let mut cookie = Cookie::new(&*attributes.name, value);
        cookie.set_http_only(true);
        cookie.set_secure(attributes.secure);
        cookie.set_same_site(match attributes.same_site {
            SameSite::Strict => cookie::SameSite::Strict,
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::None => cookie::SameSite::None,
        });
        cookie.set_path(&*attributes.path);
        if let Some(domain) = &attributes.domain {
            cookie.set_domain(&**domain);
        }
        cookie
    }
}

/// The `Max-Age` of a cookie, in seconds.
fn max_age(issued: &IssuedToken) -> i64 {
    let left = issued.ends_at.map_or(MAX_AGE, |end| {
        let left = end.duration_since(issued.issued_at).unwrap_or_default();
        left.min(MAX_AGE)
    });
    // Rounded up, so that the cookie does not end before its session.
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    i64::try_from(seconds).expect("at most 400 days")
}

fn header_value(cookie: &Cookie<'_>) -> HeaderValue {
    HeaderValue::try_from(cookie.to_string()).expect("names, values and attributes are ASCII")
}

/// The `Set-Cookie` of a response; from [`SessionCookie`].
///
/// In axum it is a part of a response, such as `(set_cookie, body)`, and a response without a body. It leaves other
/// cookies of the response as they are. It converts into a [`HeaderValue`](http::HeaderValue).
#[derive(Clone, Debug)]
#[must_use = "a cookie is set by a response only"]
pub struct SetCookie(HeaderValue);

impl SetCookie {
    /// Adds the cookie to the header fields of a response, which may set other cookies.
    ///
    /// ```
    /// # use http::Response;
    /// # use tower_bearer_session::{IssuedToken, middleware::SessionCookie};
    /// fn logged_in(cookie: &SessionCookie, issued: &IssuedToken) -> Response<String> {
    ///     let mut response = Response::new(String::from("hello"));
    ///     cookie.set(issued).append_to(response.headers_mut());
    ///     response
    /// }
    /// ```
    pub fn append_to(self, headers: &mut HeaderMap) {
        headers.append(SET_COOKIE, self.0);
    }
}

impl From<SetCookie> for HeaderValue {
    fn from(cookie: SetCookie) -> Self {
        cookie.0
    }
}

#[cfg(feature = "axum")]
impl axum_core::response::IntoResponseParts for SetCookie {
    type Error = std::convert::Infallible;

    fn into_response_parts(
        self,
        mut parts: axum_core::response::ResponseParts,
    ) -> Result<axum_core::response::ResponseParts, Self::Error> {
        self.append_to(parts.headers_mut());
        Ok(parts)
    }
}

#[cfg(feature = "axum")]
impl axum_core::response::IntoResponse for SetCookie {
    fn into_response(self) -> axum_core::response::Response {
        (self, ()).into_response()
    }
}
