//! Tokens in the WebSocket subprotocols `bearer, <token>`.

use std::collections::HashSet;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};

use super::{
    BEARER,
    read::{Found, text},
};
use crate::middleware::Rejection;

/// The tokens that an outer layer has removed from the offered protocols. It has no `Debug`, to keep them secret.
#[derive(Clone)]
enum HiddenTokens {
    One(Box<[u8]>),
    Several,
}

/// The `bearer` protocol that a WebSocket client offered, as the client spelled it.
#[derive(Clone, Copy)]
pub(in crate::middleware) struct OfferedBearer([u8; BEARER.len()]);

/// The token after `bearer` in the protocols that a WebSocket client offers.
pub(super) fn find<B>(request: &Request<B>) -> Found<'_> {
    match *offer(request.headers()).tokens {
        [] => match request.extensions().get::<HiddenTokens>() {
            None => Ok(None),
            Some(HiddenTokens::One(token)) => text(token).map(Some),
            Some(HiddenTokens::Several) => Err(Rejection::InvalidRequest),
        },
        [token] => text(token).map(Some),
        _ => Err(Rejection::InvalidRequest),
    }
}

/// Removes `bearer, <token>` from the protocols that a WebSocket client offers; `None` without a `bearer`.
pub(super) fn hide<B>(request: &mut Request<B>) -> Option<OfferedBearer> {
    let mut offer = offer(request.headers());
    let bearer = offer.bearer?;
    let hidden = match *offer.tokens {
        [token] => HiddenTokens::One(token.into()),
        _ => HiddenTokens::Several,
    };
    // A token may also be offered without a `bearer` before it.
    // A set, so that the cost is linear in the length of the field, which may have very many of either.
    let tokens: HashSet<&[u8]> = offer.tokens.iter().copied().collect();
    offer.others.retain(|other| !tokens.contains(other));
    // The token of a client that got the order wrong is among the other protocols.
    let others = match tokens.contains(&b""[..]) {
        true => Vec::new(),
        false => offer.others.join(&b", "[..]),
    };
    let headers = request.headers_mut();
    match HeaderValue::try_from(others) {
        Ok(mut others) if !others.is_empty() => {
            others.set_sensitive(true);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
        }
        _ => {
            headers.remove(SEC_WEBSOCKET_PROTOCOL);
        }
    }
    request.extensions_mut().insert(hidden);
    Some(bearer)
}

impl OfferedBearer {
    /// Reads a protocol; `None` if it is not `bearer`. Schemes are case-insensitive (RFC 9110 §11.1).
    fn read(protocol: &[u8]) -> Option<Self> {
        let bearer = protocol.try_into().ok().map(Self);
        bearer.filter(|_| protocol.eq_ignore_ascii_case(BEARER.as_bytes()))
    }

    /// Chooses this protocol in the response to a WebSocket handshake, if the service chose none (RFC 6455 §4.2.2).
    ///
    /// `connect` says whether the method was `CONNECT` (RFC 8441).
    pub(in crate::middleware) fn choose<B>(self, response: &mut Response<B>, connect: bool) {
        let status = response.status();
        let accepted = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
        let headers = response.headers_mut();
        if accepted
            && !headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
            && let Ok(bearer) = HeaderValue::from_bytes(&self.0)
        {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, bearer);
        }
    }
}

/// The protocols that a WebSocket client offers, by their role.
#[derive(Default)]
struct Offer<'a> {
    /// The first `bearer`.
    bearer: Option<OfferedBearer>,
    /// The protocol after each `bearer`; empty if none follows, or another `bearer`.
    tokens: Vec<&'a [u8]>,
    others: Vec<&'a [u8]>,
}

fn offer(headers: &HeaderMap) -> Offer<'_> {
    let mut offer = Offer::default();
    let mut offered = protocols(headers).peekable();
    while let Some(protocol) = offered.next() {
        match OfferedBearer::read(protocol) {
            Some(bearer) => {
                offer.bearer.get_or_insert(bearer);
                let token = offered.next_if(|next| OfferedBearer::read(next).is_none());
                offer.tokens.push(token.unwrap_or_default());
            }
            None => offer.others.push(protocol),
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
