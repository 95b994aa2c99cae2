use std::{borrow::Cow, fmt, sync::Arc};

use http::{
    Extensions, HeaderMap, HeaderName, Method, Request, Uri,
    header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL},
};

pub(super) use self::{list::TokenSources, websocket::OfferedBearer};
use super::Rejection;
use crate::{Error, ErrorKind};

mod list;
mod read;
mod websocket;

/// The scheme in `Authorization`, and the subprotocol that announces a token.
const BEARER: &str = "bearer";

/// Where a token is looked for in a request; for [`SessionLayer::token_sources`](super::SessionLayer::token_sources).
///
/// Header fields that may carry a token are marked as [sensitive](http::HeaderValue::set_sensitive), but for those that a
/// source of your own reads. What does not have the form of a source is no token to it; what has the form, but nothing
/// good in it, such as an empty header, is an invalid token.
#[derive(Clone)]
pub struct TokenSource(Kind);

#[derive(Clone)]
enum Kind {
    Authorization,
    Cookie(Box<str>),
    Header(HeaderName),
    WebSocketProtocol,
    Query(Box<str>),
    Custom(Arc<dyn FindToken>),
}

/// A token source of your own; for [`TokenSource::custom`].
///
/// Any `Fn(&RequestHead<'_>) -> Option<String>` is one.
pub trait FindToken: Send + Sync + 'static {
    /// The token of a request; `None` if this source has none.
    ///
    /// # Errors
    ///
    /// What to refuse the request with: [`Rejection::InvalidToken`] for a token that is no good (an optional layer lets the
    /// request through as anonymous), [`Rejection::InvalidRequest`], or [`Rejection::Fault`].
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

/// All of a request but its body. `Debug` shows neither values of headers nor the query, where tokens may be.
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

    /// The URI, as the layer sees it: a nested axum router has cut off the prefix.
    pub fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// The header fields.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// What layers further out have put into the request.
    pub fn extensions(&self) -> &'a Extensions {
        self.extensions
    }

    fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl TokenSource {
    /// `Authorization: Bearer <token>` ([RFC 6750 §2.1]): the default. More than one such header
    /// is [`Rejection::InvalidRequest`]; another scheme is no token.
    ///
    /// [RFC 6750 §2.1]: https://www.rfc-editor.org/rfc/rfc6750#section-2.1
    pub fn authorization() -> Self {
        Self(Kind::Authorization)
    }

    /// A cookie ([RFC 6265 §4.2]). An empty one is no token; different ones with the same name are
    /// [`Rejection::InvalidToken`], because anybody who controls a sibling domain can add one (give it a name that begins
    /// with `__Host-`, and they cannot).
    ///
    /// Browsers send cookies along with requests that other sites make: set it `HttpOnly`, `Secure` and
    /// `SameSite=Lax` (or `Strict`), let nothing but `POST` and the like change anything, and look at `Origin` before
    /// a WebSocket begins.
    ///
    /// Its value is compared as it is: neither RFC 6265 nor browsers encode it, and no token has a character that some
    /// frameworks would.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if no cookie can have that name.
    ///
    /// [RFC 6265 §4.2]: https://www.rfc-editor.org/rfc/rfc6265#section-4.2
    pub fn cookie(name: &str) -> Result<Self, Error> {
        // A cookie's name is a token of RFC 9110, like that of a header field, but its case counts.
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(_) => Ok(Self(Kind::Cookie(name.into()))),
            Err(_) => Err(config_error("no cookie can have this name", name)),
        }
    }

    /// A header field that has the token as its whole value. More than one such field
    /// is [`Rejection::InvalidRequest`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if no header field can have that name.
    pub fn header(name: &str) -> Result<Self, Error> {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => Ok(Self(Kind::Header(name))),
            Err(_) => Err(config_error("no header field can have this name", name)),
        }
    }

    /// The WebSocket subprotocols `bearer, <token>`, the only thing but cookies that browsers let a page
    /// choose: `new WebSocket(url, ["bearer", token])`.
    ///
    /// `bearer` is compared without regard to case. The service does not see these two among the protocols that the client
    /// offers, and none at all if a `bearer` has no token after it. If it chooses none of the others, the layer answers with
    /// `bearer` as the client spelled it, because browsers give up if none of what they offer is chosen; the token is never
    /// sent back. More than one `bearer` is [`Rejection::InvalidRequest`].
    pub fn websocket_protocol() -> Self {
        Self(Kind::WebSocketProtocol)
    }

    /// A parameter of the query, such as `access_token`. More than one of that name is
    /// [`Rejection::InvalidRequest`]. Names and values are decoded as [`application/x-www-form-urlencoded`], so that
    /// `access%5Ftoken` is the same name.
    ///
    /// Think twice: URLs are kept in logs, histories and `Referer` headers ([RFC 6750 §2.3] and [RFC 9700 §4.3.2]
    /// advise against it). It is for clients that can set neither a header nor a cookie, such as
    /// `EventSource` on another domain; give them tokens that live briefly. Layers further in see the token in the URI.
    ///
    /// [`application/x-www-form-urlencoded`]: https://url.spec.whatwg.org/#application/x-www-form-urlencoded
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the name is anything but letters, digits, `-`, `.`, `_` and `~`.
    ///
    /// [RFC 6750 §2.3]: https://www.rfc-editor.org/rfc/rfc6750#section-2.3
    /// [RFC 9700 §4.3.2]: https://www.rfc-editor.org/rfc/rfc9700#section-4.3.2
    pub fn query(name: &str) -> Result<Self, Error> {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if name.is_empty() || !name.bytes().all(unreserved) {
            return Err(config_error(
                "a query parameter cannot have this name",
                name,
            ));
        }
        Ok(Self(Kind::Query(name.into())))
    }

    /// One of your own, such as a closure. What it reads is not hidden from layers further in, and not named in the `Vary`
    /// of responses: they are `Cache-Control: private`; a handler that lets shared caches store them has to add it.
    ///
    /// ```
    /// use tower_bearer_session::middleware::{RequestHead, TokenSource};
    ///
    /// // Clients of old send `X-Auth: v1 <token>`.
    /// let source = TokenSource::custom(|request: &RequestHead<'_>| {
    ///     let value = request.headers().get("x-auth")?.to_str().ok()?;
    ///     Some(value.strip_prefix("v1 ")?.to_owned())
    /// });
    /// # let _ = source;
    /// ```
    pub fn custom(source: impl FindToken) -> Self {
        Self(Kind::Custom(Arc::new(source)))
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

    /// Hides what this source reads from those who log.
    fn mark_as_sensitive(&self, headers: &mut HeaderMap) {
        let Some(name) = self.field() else {
            return;
        };
        // Not by `entry`, which makes room for one more.
        let Some(value) = headers.get_mut(name) else {
            return;
        };
        value.set_sensitive(true);
        // Some field is there twice.
        if headers.len() > headers.keys_len() {
            let values = headers.iter_mut().filter(|(key, _)| *key == name);
            values.for_each(|(_, value)| value.set_sensitive(true));
        }
    }

    fn find<'a, B>(&self, request: &'a Request<B>) -> Result<Option<Cow<'a, str>>, Rejection> {
        let headers = request.headers();
        match &self.0 {
            Kind::Authorization => read::authorization(headers),
            Kind::Cookie(name) => read::cookie(headers, name),
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

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Authorization => f.write_str("authorization"),
            Kind::Cookie(name) => write!(f, "cookie({name})"),
            Kind::Header(name) => write!(f, "header({name})"),
            Kind::WebSocketProtocol => f.write_str("websocket_protocol"),
            Kind::Query(name) => write!(f, "query({name})"),
            Kind::Custom(_) => f.write_str("custom"),
        }
    }
}
