//! Readers of the built-in token sources. They do not validate the token that they find.

use std::{borrow::Cow, str};

use form_urlencoded::parse;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::AUTHORIZATION};

use super::BEARER;
use crate::middleware::Rejection;

pub(super) type Found<'a> = Result<Option<&'a str>, Rejection>;

/// The token of `Authorization: Bearer …`.
pub(super) fn authorization(headers: &HeaderMap) -> Found<'_> {
    let Some(value) = only(headers, &AUTHORIZATION)? else {
        return Ok(None);
    };
    // RFC 9110 §11.4: auth-scheme [ 1*SP token68 ]; the scheme is case-insensitive.
    let end = value.iter().position(|&byte| byte == b' ');
    let (scheme, token) = value.split_at(end.unwrap_or(value.len()));
    if !scheme.eq_ignore_ascii_case(BEARER.as_bytes()) {
        return Ok(None);
    }
    text(token.trim_ascii()).map(Some)
}

/// The token that is the whole value of a header field.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Found<'a> {
    let value = only(headers, name)?;
    value.map(|value| text(value.trim_ascii())).transpose()
}

/// The decoded value of a query parameter.
///
/// Only parameters that may have this name are decoded. A client may escape the name, although none of its characters
/// needs it.
pub(super) fn query<'a>(uri: &'a Uri, name: &str) -> Result<Option<Cow<'a, str>>, Rejection> {
    let parameters = uri.query().unwrap_or_default().split('&');
    let mut values = parameters.filter_map(|parameter| {
        let raw = parameter.split('=').next().unwrap_or_default();
        if raw != name && !raw.contains('%') {
            return None;
        }
        let (key, value) = parse(parameter.as_bytes()).next()?;
        (key == name).then_some(value)
    });
    match (values.next(), values.next()) {
        (token, None) => Ok(token),
        (_, Some(_)) => Err(Rejection::InvalidRequest),
    }
}

/// The value of a header field that may occur only once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(HeaderValue::as_bytes)),
        (_, Some(_)) => Err(Rejection::InvalidRequest),
    }
}

pub(super) fn text(token: &[u8]) -> Result<&str, Rejection> {
    str::from_utf8(token).map_err(|_| Rejection::InvalidToken)
}
