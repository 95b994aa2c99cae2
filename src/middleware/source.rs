use http::{
    HeaderMap,
    header::{AUTHORIZATION, Entry},
};

use super::Rejection;
use crate::token::ParsedToken;

/// Finds the token in `Authorization: Bearer …` (RFC 6750 §2.1), and marks the header as sensitive.
pub(super) fn bearer_token(headers: &mut HeaderMap) -> Result<ParsedToken, Rejection> {
    let Entry::Occupied(mut authorization) = headers.entry(AUTHORIZATION) else {
        return Err(Rejection::MissingToken);
    };
    for value in authorization.iter_mut() {
        value.set_sensitive(true);
    }
    let mut values = authorization.iter();
    let value = values.next().map_or(&b""[..], |value| value.as_bytes());
    if values.next().is_some() {
        return Err(Rejection::InvalidRequest);
    }
    // RFC 9110 §11.4: auth-scheme [ 1*SP token68 ]; the scheme is case-insensitive.
    let end = value
        .iter()
        .position(|&byte| byte == b' ')
        .unwrap_or(value.len());
    let (scheme, token) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Rejection::MissingToken);
    }
    std::str::from_utf8(token.trim_ascii())
        .ok()
        .and_then(ParsedToken::parse)
        .ok_or(Rejection::InvalidToken)
}
