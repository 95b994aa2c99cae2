use std::{borrow::Cow, fmt, sync::Arc};

use http::{
    Extensions, HeaderMap, HeaderName, Method, Request, Uri,
    header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL},
};

use self::cookie::CookieSource;
pub(super) use self::{list::TokenSources, websocket::OfferedBearer};
use super::Rejection;
use crate::{Error, ErrorKind};

mod cookie;
mod list;
mod read;
mod websocket;

/// The scheme in `Authorization`, and the WebSocket subprotocol that precedes a token.
const BEARER: &str = "bearer";

/// A place in a request from which the token is read; for
/// [`SessionLayer::token_sources`](super::SessionLayer::token_sources).
///
/// The layer marks header fields that may carry a token as [sensitive](http::HeaderValue::set_sensitive), except those
/// that a custom source reads. A value without the form of the source is no token. A value of that form with invalid
/// content, such as an empty header, is an invalid token.
///
/// Two sources are equal if they read the same place, so that a handler can ask
/// [by which source](super::Session::source) the token of its request came. A custom source is equal to its clones
/// only. Cloning is cheap.
#[derive(Clone)]
pub struct TokenSource(Kind);

#[derive(Clone)]
enum Kind {
    Authorization,
    Cookie(Arc<CookieSource>),
    Header(HeaderName),
    WebSocketProtocol,
    Query(Arc<str>),
    Custom(Arc<dyn FindToken>),
}

/// A custom token source; for [`TokenSource::custom`].
///
/// Any `Fn(&RequestHead<'_>) -> Option<String>` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot find tokens in requests",
    label = "not a token source",
    note = "pass a closure `|request: &RequestHead<'_>| -> Option<String>`, or implement `FindToken`"
)]
pub trait FindToken: Send + Sync + 'static {
    /// Reads the token of a request; `None` if this source has none.
    ///
    /// # Errors
    ///
    /// The rejection that refuses the request: [`Rejection::InvalidToken`] for an invalid token (an optional layer lets
    /// the request through as anonymous), [`Rejection::InvalidRequest`], or [`Rejection::Fault`].
    fn find_token(&self, request: &RequestHead<'_>) -> Result<Option<String>, Rejection>;
}

impl<F> FindToken for F
where
    F: Fn(&RequestHead<'_>) -> Option<String> + Send + Sync + 'static,
{
    fn find_token(&self, request: &RequestHead<'_>) -> Result<Option<String>, Rejection> {
        Ok(self(request))
    }
}

/// A request without its body. `Debug` shows neither header values nor the query, which may contain tokens.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// The method.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The URI as the layer sees it: a nested axum router has removed the prefix.
    pub fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// The header fields.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The extensions that outer layers have attached to the request.
    pub fn extensions(&self) -> &'a Extensions {
        self.extensions
    }

    pub(super) fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl TokenSource {
    /// The header `Authorization: Bearer <token>` ([RFC 6750 §2.1]), the default source.
    ///
    /// More than one such header is [`Rejection::InvalidRequest`]. Another scheme is no token.
    ///
    /// [RFC 6750 §2.1]: https://www.rfc-editor.org/rfc/rfc6750#section-2.1
    pub fn authorization() -> Self {
        Self(Kind::Authorization)
    }

    /// A cookie with this name ([RFC 6265 §4.2]).
    ///
    /// An empty cookie is no token. Cookies of this name with different values are [`Rejection::InvalidToken`], because
    /// anybody who controls a sibling domain can add one, unless the name begins with `__Host-`.
    ///
    /// This source only reads the cookie; a [`SessionCookie`] also sets and clears it. Browsers also send cookies with
    /// requests that other sites make: see the [guide].
    ///
    /// The value is not decoded: neither RFC 6265 nor browsers encode it, and no token has a character that some
    /// frameworks encode.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the name is not valid for a cookie.
    ///
    /// [RFC 6265 §4.2]: https://www.rfc-editor.org/rfc/rfc6265#section-4.2
    #[cfg_attr(feature = "cookie", doc = "[`SessionCookie`]: super::SessionCookie")]
    #[cfg_attr(feature = "cookie", doc = "[guide]: crate::guide::cookies")]
    #[cfg_attr(not(feature = "cookie"), doc = "[`SessionCookie`]: #")]
    #[cfg_attr(not(feature = "cookie"), doc = "[guide]: crate::guide")]
    pub fn cookie(name: &str) -> Result<Self, Error> {
        // A cookie name is a token of RFC 9110, like a header field name, but case-sensitive.
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(_) => Ok(Self::from_cookie(CookieSource::new(name, None))),
            Err(_) => Err(config_error("this is not a valid cookie name", name)),
        }
    }

    /// A header field that has the token as its whole value. More than one such field is
    /// [`Rejection::InvalidRequest`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the name is not valid for a header field.
    pub fn header(name: &str) -> Result<Self, Error> {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => Ok(Self(Kind::Header(name))),
            Err(_) => Err(config_error("this is not a valid header field name", name)),
        }
    }

    /// The WebSocket subprotocols `bearer, <token>`: `new WebSocket(url, ["bearer", token])`.
    ///
    /// Apart from cookies, browsers let a page set nothing else in a WebSocket request. `bearer` is case-insensitive.
    /// The layer removes these two from the offered protocols, and all of them if no token follows a `bearer`. If the
    /// service chooses no other protocol, the layer responds with `bearer` as the client spelled it, because browsers
    /// fail the connection if none of their protocols is chosen. The token is never sent back. More than one `bearer`
    /// is [`Rejection::InvalidRequest`].
    pub fn websocket_protocol() -> Self {
        Self(Kind::WebSocketProtocol)
    }

    /// A query parameter, such as `access_token`. More than one of that name is [`Rejection::InvalidRequest`].
    ///
    /// **Avoid it where you can**: URLs are kept in logs, histories and `Referer` headers ([RFC 6750 §2.3] and
    /// [RFC 9700 §4.3.2] advise against it). It is for clients that can set neither a header nor a cookie, such as
    /// `EventSource` on another domain; give them short-lived tokens. Inner layers see the token in the URI.
    ///
    /// Names and values are decoded as [`application/x-www-form-urlencoded`], so `access%5Ftoken` is the same name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the name is empty, or has characters other than ASCII letters, digits, `-`, `.`, `_`
    /// and `~`.
    ///
    /// [`application/x-www-form-urlencoded`]: https://url.spec.whatwg.org/#application/x-www-form-urlencoded
    /// [RFC 6750 §2.3]: https://www.rfc-editor.org/rfc/rfc6750#section-2.3
    /// [RFC 9700 §4.3.2]: https://www.rfc-editor.org/rfc/rfc9700#section-4.3.2
    pub fn query(name: &str) -> Result<Self, Error> {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if name.is_empty() || !name.bytes().all(unreserved) {
            return Err(config_error(
                "this is not a valid query parameter name",
                name,
            ));
        }
        Ok(Self(Kind::Query(name.into())))
    }

    /// A custom source, such as a closure.
    ///
    /// The layer does not hide what the source reads from inner layers, and does not name it in the `Vary` of
    /// responses, which are `Cache-Control: private`. A handler that lets shared caches store its responses has to add
    /// it to `Vary`.
    ///
    /// ```
    /// use tower_bearer_session::middleware::{RequestHead, TokenSource};
    ///
    /// // Old clients send `X-Auth: v1 <token>`.
    /// let source = TokenSource::custom(|request: &RequestHead<'_>| {
    ///     let value = request.headers().get("x-auth")?.to_str().ok()?;
    ///     Some(value.strip_prefix("v1 ")?.to_owned())
    /// });
    /// # let _ = source;
    /// ```
    pub fn custom(source: impl FindToken) -> Self {
        Self(Kind::Custom(Arc::new(source)))
    }

    /// A cookie with this name, which is valid, and the `Set-Cookie` that clears it.
    #[cfg(feature = "cookie")]
    pub(super) fn session_cookie(name: &str, clearing: http::HeaderValue) -> Self {
        Self::from_cookie(CookieSource::new(name, Some(clearing)))
    }

    fn from_cookie(cookie: CookieSource) -> Self {
        Self(Kind::Cookie(Arc::new(cookie)))
    }

    /// Whether this is a cookie, which browsers also send with requests that other sites make.
    pub fn is_cookie(&self) -> bool {
        matches!(self.0, Kind::Cookie(_))
    }

    /// Whether the request has several tokens in this cookie.
    fn is_ambiguous(&self, headers: &HeaderMap) -> bool {
        matches!(&self.0, Kind::Cookie(cookie) if cookie.is_ambiguous(headers))
    }

    /// Clears the cookie if it is a session cookie, unless the response sets it.
    pub(super) fn clear_cookie(&self, headers: &mut HeaderMap) {
        if let Kind::Cookie(cookie) = &self.0 {
            cookie.clear(headers);
        }
    }

    /// The header field that may carry the token.
    pub(super) fn field(&self) -> Option<&HeaderName> {
        match &self.0 {
            Kind::Authorization => Some(&AUTHORIZATION),
            Kind::Cookie(_) => Some(&COOKIE),
            Kind::Header(name) => Some(name),
            Kind::WebSocketProtocol => Some(&SEC_WEBSOCKET_PROTOCOL),
            Kind::Query(_) | Kind::Custom(_) => None,
        }
    }

    /// Marks the header values of this source as sensitive, so that they are not logged.
    fn mark_as_sensitive(&self, headers: &mut HeaderMap) {
        let Some(name) = self.field() else {
            return;
        };
        // Not `entry`, which may grow the map.
        let Some(value) = headers.get_mut(name) else {
            return;
        };
        value.set_sensitive(true);
        // Some field has several values.
        if headers.len() > headers.keys_len() {
            let values = headers.iter_mut().filter(|(key, _)| *key == name);
            values.for_each(|(_, value)| value.set_sensitive(true));
        }
    }

    fn find<'a, B>(&self, request: &'a Request<B>) -> Result<Option<Cow<'a, str>>, Rejection> {
        let headers = request.headers();
        match &self.0 {
            Kind::Authorization => read::authorization(headers),
            Kind::Cookie(cookie) => cookie.read(headers),
            Kind::Header(name) => read::header(headers, name),
            Kind::WebSocketProtocol => websocket::find(request),
            Kind::Query(name) => return read::query(request.uri(), name),
            Kind::Custom(source) => {
                let token = source.find_token(&RequestHead::of(request))?;
                return Ok(token.map(Cow::Owned));
            }
        }
        .map(|token| token.map(Cow::Borrowed))
    }
}

fn config_error(message: &str, name: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{message}: {name:?}"))
}

impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", self.method)
            .field("path", &self.uri.path())
            .field("headers", &Vec::from_iter(self.headers.keys()))
            .finish_non_exhaustive()
    }
}

impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Authorization, Kind::Authorization) => true,
            (Kind::Cookie(one), Kind::Cookie(other)) => one.name() == other.name(),
            (Kind::Header(one), Kind::Header(other)) => one == other,
            (Kind::WebSocketProtocol, Kind::WebSocketProtocol) => true,
            (Kind::Query(one), Kind::Query(other)) => one == other,
            (Kind::Custom(one), Kind::Custom(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for TokenSource {}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Authorization => f.write_str("authorization"),
            Kind::Cookie(cookie) => write!(f, "cookie({})", cookie.name()),
            Kind::Header(name) => write!(f, "header({name})"),
            Kind::WebSocketProtocol => f.write_str("websocket_protocol"),
            Kind::Query(name) => write!(f, "query({name})"),
            Kind::Custom(_) => f.write_str("custom"),
        }
    }
}
