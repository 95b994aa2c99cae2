//! Requests to a layer with all token sources.
//!
//! The first line is the URI; the others are header fields, `name: value`.
//!
//! - Whether a request is accepted, as whom, and with which status it is refused, is what this file finds by the
//!   documentation of the sources, for each source alone and for several in any order.
//! - No request with two tokens is accepted, unless the first source decides.
//! - A token reads the same from each source.
//! - The inner service sees the header fields of sources as sensitive, and no token among the WebSocket protocols.
//! - No response shows a token, and none is a 5xx.

#![no_main]

use std::{convert::Infallible, str, sync::LazyLock};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::SEC_WEBSOCKET_PROTOCOL,
};
use libfuzzer_sys::fuzz_target;
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    MemoryStore, SessionLayer, SessionStore, TokenManager, User,
    middleware::TokenSource,
    store::{MAX_TTL, NewSession},
};
use tower_bearer_session_fuzz::{ALICE, AlwaysLive, BOB, block_on, user_of_opaque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Authorization,
    Cookie,
    Header,
    WebSocketProtocol,
    Query,
}

use Source::{Authorization, Cookie, Header, Query, WebSocketProtocol};

const SOURCES: [Source; 5] = [Authorization, Cookie, Header, WebSocketProtocol, Query];
const COOKIE: &str = "session";
const HEADER: &str = "x-session";
const PARAMETER: &str = "access_token";

/// A manager with a session of Alice and one of Bob.
static MANAGER: LazyLock<TokenManager> = LazyLock::new(|| {
    let store = MemoryStore::new();
    block_on(async {
        for token in [ALICE, BOB] {
            let user = ANY
                .check_token(token)
                .await
                .expect("no fault")
                .expect("a user");
            let id = user.token_id().expect("a token id");
            let created = store
                .create(user.id(), id, &NewSession::new(MAX_TTL), None)
                .await;
            created.expect("a session");
        }
    });
    TokenManager::new(store)
});

/// A manager that accepts every well-formed token.
static ANY: LazyLock<TokenManager> = LazyLock::new(|| TokenManager::new(AlwaysLive));

/// What a source finds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Token(String),
    Unreadable,
    Several,
}

impl Found {
    fn of(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Token(text.to_owned()),
            Err(_) => Self::Unreadable,
        }
    }
}

fn is_bearer(text: &[u8]) -> bool {
    text.to_ascii_lowercase() == b"bearer"
}

/// Reads one source, by its documentation.
fn read(source: Source, uri: &Uri, headers: &HeaderMap) -> Found {
    let fields = |name: &str| -> Vec<&[u8]> {
        headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect()
    };
    match source {
        Authorization => match fields("authorization")[..] {
            [] => Found::Nothing,
            [value] => {
                let mut words = value.splitn(2, |byte| *byte == b' ');
                match is_bearer(words.next().unwrap_or_default()) {
                    true => Found::of(words.next().unwrap_or_default().trim_ascii()),
                    false => Found::Nothing,
                }
            }
            _ => Found::Several,
        },
        Header => match fields(HEADER)[..] {
            [] => Found::Nothing,
            [value] => Found::of(value.trim_ascii()),
            _ => Found::Several,
        },
        Cookie => {
            let all = fields("cookie").join(&b';');
            let mut values = Vec::new();
            for pair in all.split(|byte| *byte == b';') {
                let mut parts = pair.splitn(2, |byte| *byte == b'=');
                if parts.next().unwrap_or_default().trim_ascii() != COOKIE.as_bytes() {
                    continue;
                }
                let value = parts.next().unwrap_or_default().trim_ascii();
                values.push(match value {
                    [b'"', inner @ .., b'"'] => inner,
                    value => value,
                });
            }
            values.retain(|value| !value.is_empty());
            values.dedup();
            match values[..] {
                [] => Found::Nothing,
                [value] => Found::of(value),
                _ => Found::Unreadable,
            }
        }
        WebSocketProtocol => {
            let all = fields("sec-websocket-protocol").join(&b',');
            let protocols = all.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            let protocols: Vec<_> = protocols.filter(|protocol| !protocol.is_empty()).collect();
            let bearers: Vec<_> = (0..protocols.len())
                .filter(|at| is_bearer(protocols[*at]))
                .collect();
            match bearers[..] {
                [] => Found::Nothing,
                [at] => Found::of(protocols.get(at + 1).copied().unwrap_or_default()),
                _ => Found::Several,
            }
        }
        Query => {
            let query = uri.query().unwrap_or_default();
            let pairs = form_urlencoded::parse(query.as_bytes());
            let values = pairs.filter(|(name, _)| name == PARAMETER);
            let values: Vec<_> = values.map(|(_, value)| value.into_owned()).collect();
            match &values[..] {
                [] => Found::Nothing,
                [value] => Found::Token(value.clone()),
                _ => Found::Several,
            }
        }
    }
}

/// Reads several sources.
fn read_all(sources: &[Source], first_decides: bool, uri: &Uri, headers: &HeaderMap) -> Found {
    let found = sources.iter().map(|source| read(*source, uri, headers));
    let mut found = found.filter(|found| *found != Found::Nothing);
    match (found.next(), found.next()) {
        (None, _) => Found::Nothing,
        (Some(only), None) => only,
        (Some(first), Some(_)) if first_decides => first,
        (Some(_), Some(_)) => Found::Several,
    }
}

fn token_source(source: Source) -> TokenSource {
    match source {
        Authorization => TokenSource::authorization(),
        Cookie => TokenSource::cookie(COOKIE).expect("a name"),
        Header => TokenSource::header(HEADER).expect("a name"),
        WebSocketProtocol => TokenSource::websocket_protocol(),
        Query => TokenSource::query(PARAMETER).expect("a name"),
    }
}

/// Answers with the user id, and chooses the first WebSocket protocol that is offered.
async fn inner(request: Request<Vec<Source>>) -> Result<Response<String>, Infallible> {
    let user: Option<&User> = request.extensions().get();
    let mut response = Response::new(user.map(|user| user.id().to_owned()).unwrap_or_default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for source in request.body() {
        let name = match source {
            Authorization => "authorization",
            Cookie => "cookie",
            Header => HEADER,
            WebSocketProtocol => "sec-websocket-protocol",
            Query => continue,
        };
        let mut values = request.headers().get_all(name).iter();
        assert!(values.all(HeaderValue::is_sensitive), "{name}");
    }
    if let Some(protocols) = request.headers().get(SEC_WEBSOCKET_PROTOCOL) {
        let first = protocols.as_bytes().split(|byte| *byte == b',').next();
        let first = first.unwrap_or_default().trim_ascii();
        if request.body().contains(&WebSocketProtocol) {
            assert!(!is_bearer(first));
        }
        if let Ok(first) = HeaderValue::from_bytes(first) {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, first);
        }
    }
    Ok(response)
}

fn request(sources: &[Source], uri: &Uri, headers: &HeaderMap) -> Request<Vec<Source>> {
    let mut request = Request::new(sources.to_vec());
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers.clone();
    request
}

/// Sends a request through a layer, and compares the response to the one that is expected.
fn send(sources: &[Source], first_decides: bool, optional: bool, uri: &Uri, headers: &HeaderMap) {
    let mut layer =
        SessionLayer::new(MANAGER.clone()).token_sources(sources.iter().copied().map(token_source));
    if first_decides {
        layer = layer.first_source_decides();
    }
    if optional {
        layer = layer.optional();
    }
    let response = block_on(
        layer
            .layer(service_fn(inner))
            .oneshot(request(sources, uri, headers)),
    );
    let response = match response {
        Ok(response) => response,
        Err(error) => match error {},
    };

    let found = read_all(sources, first_decides, uri, headers);
    let user = match &found {
        Found::Token(token) if token == ALICE => Some("alice"),
        Found::Token(token) if token == BOB => Some("bob"),
        _ => None,
    };
    let (status, challenge) = match (&found, user) {
        (_, Some(_)) => (StatusCode::SWITCHING_PROTOCOLS, None),
        (Found::Several, None) => (StatusCode::BAD_REQUEST, Some("invalid_request")),
        (_, None) if optional => (StatusCode::SWITCHING_PROTOCOLS, None),
        (Found::Nothing, None) => (StatusCode::UNAUTHORIZED, Some("Bearer realm")),
        (_, None) => (StatusCode::UNAUTHORIZED, Some("invalid_token")),
    };
    assert_eq!(response.status(), status, "{found:?}");
    assert_eq!(response.body(), user.unwrap_or_default(), "{found:?}");
    if let Some(challenge) = challenge {
        let shown = response.headers()["www-authenticate"]
            .to_str()
            .expect("ASCII");
        assert!(shown.contains(challenge), "{shown}");
    }
    // The inner service is as careless as it can be: whatever the layer leaves among the protocols may come back.
    let websocket = read(WebSocketProtocol, uri, headers);
    if sources.contains(&WebSocketProtocol)
        && let Found::Token(token) = websocket
        && !token.is_empty()
    {
        let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
        assert!(
            chosen.is_none_or(|chosen| chosen.as_bytes() != token.as_bytes()),
            "{chosen:?}"
        );
    }
}

/// Sends a text through each source that can carry it.
fn send_everywhere(text: &str) {
    let checked = block_on(ANY.check_token(text)).expect("no fault");
    let checked = checked.map(|user| user.id().to_owned());
    assert_eq!(checked, user_of_opaque(text));
    for source in SOURCES {
        let (mut uri, mut headers) = (Uri::from_static("/"), HeaderMap::new());
        let (name, value) = match source {
            Authorization => ("authorization", format!("Bearer {text}")),
            Cookie => ("cookie", format!("a=b; {COOKIE}={text}; c=d")),
            Header => (HEADER, text.to_owned()),
            WebSocketProtocol => ("sec-websocket-protocol", format!("bearer, {text}")),
            Query => {
                let text: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
                uri = format!("/?a=b&{PARAMETER}={text}").parse().expect("a URI");
                ("accept", String::new())
            }
        };
        headers.insert(name, HeaderValue::try_from(value).expect("ASCII"));
        let layer = SessionLayer::new(ANY.clone()).token_sources([token_source(source)]);
        let service = layer.optional().layer(service_fn(inner));
        let response = block_on(service.oneshot(request(&[source], &uri, &headers)));
        let response = response.unwrap_or_else(|error| match error {});
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let user = Some(response.into_body()).filter(|user| !user.is_empty());
        assert_eq!(user, checked, "{source:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Ok(uri) = Uri::try_from(lines.next().unwrap_or_default()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in lines.take(20) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..at]);
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    for source in SOURCES {
        send(&[source], false, false, &uri, &headers);
    }
    let mut reversed = SOURCES;
    reversed.reverse();
    for sources in [SOURCES, reversed] {
        for (first_decides, optional) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            send(&sources, first_decides, optional, &uri, &headers);
        }
    }
    for value in headers.values() {
        // A token68 (RFC 9110 §11.2), which every source can carry.
        let is_token68 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        let is_token = !value.is_empty() && value.as_bytes().iter().all(is_token68);
        if is_token && !is_bearer(value.as_bytes()) {
            send_everywhere(str::from_utf8(value.as_bytes()).expect("ASCII"));
        }
    }
});
