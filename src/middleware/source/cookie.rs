//! Tokens in cookies.

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};

use super::read::{Found, text};
use crate::middleware::Rejection;

/// A cookie that may carry the token.
pub(super) struct CookieSource {
    name: Box<str>,
    /// The `Set-Cookie` that clears the cookie; `None` if the layer only reads it.
    clearing: Option<HeaderValue>,
}

impl CookieSource {
    pub(super) fn new(name: &str, clearing: Option<HeaderValue>) -> Self {
        let name = name.into();
        Self { name, clearing }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The value of the cookie.
    pub(super) fn read<'a>(&self, headers: &'a HeaderMap) -> Found<'a> {
        match self.only_value(headers) {
            Ok(value) => value.map(text).transpose(),
            Err(Ambiguous) => Err(Rejection::InvalidToken),
        }
    }

    /// Whether the request has this cookie with different values.
    ///
    /// One of them is from somebody else, perhaps from a sibling domain. Clearing the other one would leave the user
    /// with that one alone.
    pub(super) fn is_ambiguous(&self, headers: &HeaderMap) -> bool {
        self.only_value(headers).is_err()
    }

    /// Appends the `Set-Cookie` that clears the cookie, unless the response already sets this cookie.
    pub(super) fn clear(&self, headers: &mut HeaderMap) {
        let Some(clearing) = &self.clearing else {
            return;
        };
        let sets_it = |value: &HeaderValue| {
            let name = value.as_bytes().split(|&byte| byte == b'=').next();
            name.map(<[u8]>::trim_ascii) == Some(self.name.as_bytes())
        };
        if !headers.get_all(SET_COOKIE).iter().any(sets_it) {
            headers.append(SET_COOKIE, clearing.clone());
        }
    }

    /// The value of the cookie. HTTP/2 clients may send each cookie in a field of its own (RFC 9113 §8.2.3).
    fn only_value<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a [u8]>, Ambiguous> {
        let fields = headers.get_all(COOKIE).iter();
        let pairs = fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b';'));
        let values = pairs.filter_map(|pair| {
            let at = pair.iter().position(|&byte| byte == b'=')?;
            let (key, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
            (key == self.name.as_bytes()).then(|| unquoted(value))
        });
        let mut found: Option<&[u8]> = None;
        for value in values.filter(|value| !value.is_empty()) {
            if *found.get_or_insert(value) != value {
                return Err(Ambiguous);
            }
        }
        Ok(found)
    }
}

/// Cookies of the same name have different values.
struct Ambiguous;

/// The value of a cookie without its quotes (RFC 6265 §4.1.1: cookie-value).
fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value.strip_prefix(b"\"");
    inner
        .and_then(|inner| inner.strip_suffix(b"\""))
        .unwrap_or(value)
}
