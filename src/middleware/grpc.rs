//! gRPC over HTTP/2 ([protocol](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)).

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};

use super::Rejection;

/// Whether a request is a gRPC call: a `POST` of type `application/grpc`, with or without `+` and a format.
///
/// gRPC-Web is another protocol, which an outer layer may translate.
pub(super) fn is_call<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.map(HeaderValue::as_bytes).unwrap_or_default();
    // Media types are case-insensitive, and may have parameters (RFC 9110 §8.3.1).
    let (kind, rest) = kind.split_at(kind.len().min(b"application/grpc".len()));
    request.method() == Method::POST
        && kind.eq_ignore_ascii_case(b"application/grpc")
        && (rest.is_empty() || rest.starts_with(b"+") || rest.trim_ascii_start().starts_with(b";"))
}

/// Turns a refusal into the *Trailers-Only* response of a gRPC server; its body must be empty.
pub(super) fn make_trailers_only<B>(rejection: &Rejection, response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(WWW_AUTHENTICATE);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(rejection.grpc_status()));
    // gRPC wants all but printable ASCII percent-encoded. A message that would need it is left out: the status
    // suffices.
    let message = rejection.to_string();
    if message
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'%')
        && let Ok(message) = HeaderValue::try_from(message)
    {
        headers.insert("grpc-message", message);
    }
}
