use http::{HeaderMap, header::AUTHORIZATION};

use super::Rejection;

/// Finds the token in `Authorization: Bearer …` (RFC 6750 §2.1), and marks the header as sensitive.
pub(super) fn bearer_token(headers: &mut HeaderMap) -> Result<&str, Rejection> {
    if headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
        return Err(Rejection::InvalidRequest);
    }
    let Some(value) = headers.get_mut(AUTHORIZATION) else {
        return Err(Rejection::MissingToken);
    };
    value.set_sensitive(true);
    // RFC 9110 §11.4: auth-scheme [ 1*SP token68 ]; the scheme is case-insensitive.
    let value = value.as_bytes();
    let end = value.iter().position(|&byte| byte == b' ');
    let (scheme, token) = value.split_at(end.unwrap_or(value.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Rejection::MissingToken);
    }
    std::str::from_utf8(token.trim_ascii()).map_err(|_| Rejection::InvalidToken)
}
