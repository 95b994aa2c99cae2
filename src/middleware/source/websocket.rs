//! The WebSocket subprotocols `bearer, <token>`.

use std::str;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};

use super::{
    BEARER,
    read::{Found, text},
};
use crate::middleware::Rejection;

/// What a layer further out has taken out of the protocols that a WebSocket client offers. No `Debug` on purpose.
#[derive(Clone)]
struct HiddenToken(Box<str>);

/// What follows `bearer` among the protocols that a WebSocket client offers.
pub(super) fn find<B>(request: &Request<B>) -> Found<'_> {
    match *offer(request.headers()).tokens {
        [] => {
            let hidden = request.extensions().get::<HiddenToken>();
            Ok(hidden.map(|HiddenToken(token)| &**token))
        }
        [token] => text(token).map(Some),
        _ => Err(Rejection::InvalidRequest),
    }
}

/// Takes `bearer, <token>` out of the protocols that a WebSocket client offers; `false` if there is none.
pub(super) fn hide<B>(request: &mut Request<B>) -> bool {
    let offer = offer(request.headers());
    let Some(token) = offer.tokens.first() else {
        return false;
    };
    let hidden = str::from_utf8(token).map(|token| HiddenToken(token.into()));
    let others = offer.others.join(&b", "[..]);
    let headers = request.headers_mut();
    match HeaderValue::try_from(others) {
        Ok(mut others) if !others.is_empty() => {
            // There may be a token among them, of a client that got the order wrong.
            others.set_sensitive(true);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
        }
        _ => {
            headers.remove(SEC_WEBSOCKET_PROTOCOL);
        }
    }
    if let Ok(hidden) = hidden {
        request.extensions_mut().insert(hidden);
    }
    true
}

/// Lets a browser have one of the protocols that it offered. `connect`: the method was `CONNECT`, as by RFC 8441.
pub(in crate::middleware) fn choose_bearer<B>(response: &mut Response<B>, connect: bool) {
    let status = response.status();
    let accepted = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
    let headers = response.headers_mut();
    if accepted && !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
    }
}

/// What a WebSocket client offers.
#[derive(Default)]
struct Offer<'a> {
    /// Whatever stands after a `bearer`.
    tokens: Vec<&'a [u8]>,
    others: Vec<&'a [u8]>,
}

fn offer(headers: &HeaderMap) -> Offer<'_> {
    let mut offer = Offer::default();
    let mut offered = protocols(headers);
    while let Some(protocol) = offered.next() {
        if protocol == BEARER.as_bytes() {
            offer.tokens.push(offered.next().unwrap_or_default());
        } else {
            offer.others.push(protocol);
        }
    }
    offer
}

/// The protocols that a WebSocket client offers.
fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let items = fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b','));
    items
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}
