use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL},
};
use proptest::{collection::vec, prelude::*};
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Rejection, SessionLayer, User,
    middleware::{RequestHead, TokenSource},
};

use super::{Profile, Spy, bearer, manager};
use crate::stores::forged;

const HEADER: HeaderName = HeaderName::from_static("x-session");
const OLD: HeaderName = HeaderName::from_static("x-old");

/// Every kind, in the order in which the tests list them.
fn sources() -> [TokenSource; 6] {
    [
        TokenSource::authorization(),
        TokenSource::cookie("session").unwrap(),
        TokenSource::header("X-Session").unwrap(),
        TokenSource::websocket_protocol(),
        TokenSource::query("access_token").unwrap(),
        TokenSource::custom(|request: &RequestHead<'_>| {
            let value = request.headers().get("x-old")?.to_str().ok()?;
            Some(value.strip_prefix("v1 ")?.to_owned())
        }),
    ]
}

/// A request with one more header field.
fn with(mut request: Request<()>, name: &HeaderName, value: impl AsRef<[u8]>) -> Request<()> {
    let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
    request.headers_mut().append(name, value);
    request
}

fn at(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// The user that a required layer finds, or the status.
pub(super) async fn found(
    layer: &SessionLayer<Profile>,
    request: Request<()>,
) -> Result<String, u16> {
    let inner = service_fn(async |request: Request<()>| {
        let user: &User<Profile> = request.extensions().get().expect("a user");
        Ok::<_, Infallible>(Response::new(user.id().to_owned()))
    });
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        refused => Err(refused.as_u16()),
    }
}

/// Where each source looks, what it takes for a token and what for none.
#[tokio::test]
async fn every_source_reads_its_own_place() {
    let manager = manager(&Spy::default());
    let token = manager.set_token("al", None).await.unwrap();
    let text = token.expose_secret();
    let [authorization, cookie, header, websocket, query, custom] =
        sources().map(|source| SessionLayer::new(manager.clone()).token_sources([source]));
    let none = || at("/");
    let cookies = |value: String| with(none(), &COOKIE, value);
    let protocols = |value: String| with(none(), &SEC_WEBSOCKET_PROTOCOL, value);
    let old = HeaderName::from_static("x-old");
    let (fine, missing, invalid, ambiguous) = (Ok("al".to_owned()), Err(401), Err(401), Err(400));
    for (layer, request, expected) in [
        (
            &authorization,
            with(none(), &AUTHORIZATION, bearer(&token)),
            &fine,
        ),
        (&authorization, cookies(format!("session={text}")), &missing),
        (&cookie, cookies(format!("session={text}")), &fine),
        (&cookie, cookies(format!("a=b; session={text}; c=d")), &fine),
        (
            &cookie,
            cookies(format!("a;session = \"{text}\" ;;=")),
            &fine,
        ),
        (
            &cookie,
            cookies(format!("a={text}; Session={text}")),
            &missing,
        ),
        (
            &cookie,
            cookies(format!("xsession={text}; sessions={text}")),
            &missing,
        ),
        (
            &cookie,
            cookies("session=; session=\"\"".to_owned()),
            &missing,
        ),
        (&cookie, cookies(format!("session=; session={text}")), &fine),
        (
            &cookie,
            cookies(format!("session={text}; session={text}")),
            &fine,
        ),
        (
            &cookie,
            cookies(format!("session={text}; session=x")),
            &invalid,
        ),
        (
            &cookie,
            cookies(format!("session=x; session={text}")),
            &invalid,
        ),
        // HTTP/2 clients split cookies.
        (
            &cookie,
            with(
                cookies("a=b".to_owned()),
                &COOKIE,
                format!("session={text}"),
            ),
            &fine,
        ),
        (&header, with(none(), &HEADER, text), &fine),
        (&header, with(none(), &HEADER, format!(" {text} ")), &fine),
        (&header, with(none(), &HEADER, bearer(&token)), &invalid),
        (
            &header,
            with(with(none(), &HEADER, text), &HEADER, text),
            &ambiguous,
        ),
        (&websocket, protocols(format!("bearer, {text}")), &fine),
        (
            &websocket,
            protocols(format!("chat,bearer,{text},superchat")),
            &fine,
        ),
        (
            &websocket,
            with(
                protocols("bearer".to_owned()),
                &SEC_WEBSOCKET_PROTOCOL,
                text,
            ),
            &fine,
        ),
        (&websocket, protocols(format!("chat, {text}")), &missing),
        (&websocket, protocols("bearer".to_owned()), &invalid),
        // A scheme has no case (RFC 9110 §11.1).
        (&websocket, protocols(format!("Bearer, {text}")), &fine),
        (
            &websocket,
            protocols(format!("bearer, bearer, {text}")),
            &ambiguous,
        ),
        (&websocket, protocols(format!("{text}, bearer")), &invalid),
        (&query, at(&format!("/?access_token={text}")), &fine),
        (&query, at(&format!("/a?b=c&access_token={text}&d")), &fine),
        (&query, at(&format!("/?Access_token={text}")), &missing),
        (&query, at("/?access_token"), &invalid),
        (
            &query,
            at(&format!("/?access_token={text}&access_token={text}")),
            &ambiguous,
        ),
        (
            &query,
            with(none(), &AUTHORIZATION, bearer(&token)),
            &missing,
        ),
        (&custom, with(none(), &old, format!("v1 {text}")), &fine),
        (&custom, with(none(), &old, format!("v2 {text}")), &missing),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(&found(layer, request).await, expected, "{shown}");
    }
}

/// Where the layer is told so, the first source that has a token decides, even if the token is no good.
#[tokio::test]
async fn the_first_source_with_a_token_decides() {
    let manager = manager(&Spy::default());
    let [al, bo] = ["al", "bo"].map(|user| manager.set_token(user, None));
    let (al, bo) = (al.await.unwrap(), bo.await.unwrap());
    let cookie = |request, value: &str| with(request, &COOKIE, format!("session={value}"));
    let both = || {
        cookie(
            with(at("/"), &AUTHORIZATION, bearer(&al)),
            bo.expose_secret(),
        )
    };
    let [authorization, session, ..] = sources();
    let layer = SessionLayer::new(manager).first_source_decides();
    let header_first = layer
        .clone()
        .token_sources([authorization.clone(), session.clone()]);
    let cookie_first = layer.token_sources([session, authorization]);
    assert_eq!(found(&header_first, both()).await, Ok("al".to_owned()));
    assert_eq!(found(&cookie_first, both()).await, Ok("bo".to_owned()));
    let bad_header = cookie(
        with(at("/"), &AUTHORIZATION, "Bearer x"),
        bo.expose_secret(),
    );
    assert_eq!(found(&header_first, bad_header).await, Err(401));
    // Another scheme is no token, and an empty cookie is none either.
    let basic = cookie(
        with(at("/"), &AUTHORIZATION, "Basic eA=="),
        bo.expose_secret(),
    );
    assert_eq!(found(&header_first, basic).await, Ok("bo".to_owned()));
    let empty = cookie(with(at("/"), &AUTHORIZATION, bearer(&al)), "");
    assert_eq!(found(&cookie_first, empty).await, Ok("al".to_owned()));
}

/// Without any source nobody is anybody.
#[tokio::test]
async fn no_source_no_token() {
    let manager = manager(&Spy::default());
    let token = manager.set_token("al", None).await.unwrap();
    let layer = SessionLayer::new(manager).token_sources([]);
    let request = with(at("/"), &AUTHORIZATION, bearer(&token));
    assert_eq!(found(&layer, request).await, Err(401));
}

/// A source of one's own can refuse a request, and is told all of it but the body.
#[tokio::test]
async fn a_custom_source_may_refuse() {
    struct Strict;
    impl tower_bearer_session::middleware::FindToken for Strict {
        fn find_token(&self, request: &RequestHead<'_>) -> Result<Option<String>, Rejection> {
            assert_eq!(request.method(), http::Method::GET);
            match request.uri().path() {
                "/none" => Ok(None),
                "/bad" => Err(Rejection::InvalidRequest),
                _ => Ok(request.extensions().get::<String>().cloned()),
            }
        }
    }
    let manager = manager(&Spy::default());
    let token = manager.set_token("al", None).await.unwrap();
    let layer = SessionLayer::new(manager).token_sources([TokenSource::custom(Strict)]);
    for (path, expected) in [
        ("/none", Err(401)),
        ("/bad", Err(400)),
        ("/", Ok("al".to_owned())),
    ] {
        let mut request = at(path);
        request
            .extensions_mut()
            .insert(token.expose_secret().to_owned());
        assert_eq!(found(&layer, request).await, expected, "{path}");
    }
}

/// What a source reads does not show when the request is logged, and a WebSocket token is not there at all.
#[tokio::test]
async fn what_carries_a_token_is_sensitive() {
    let manager = manager(&Spy::default());
    let layer = SessionLayer::new(manager)
        .optional()
        .token_sources(sources());
    let inner = service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(Response::new(format!("{request:?}")))
    });
    for source in sources().into_iter().take(3) {
        let layer = layer.clone().token_sources([source]);
        let mut request = Request::new(());
        for name in [AUTHORIZATION, COOKIE, HEADER] {
            request = with(request, &name, "Bearer hunter2; session=hunter2");
        }
        let shown = layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(shown.into_body().matches("Sensitive").count(), 1);
    }
}

/// Browsers give up a WebSocket unless one of the protocols that they offer is chosen; the token must not be.
#[tokio::test]
async fn the_right_protocol_is_chosen() {
    let manager = manager(&Spy::default());
    let token = manager.set_token("al", None).await.unwrap();
    let layer = SessionLayer::new(manager).token_sources(sources());
    let text = token.expose_secret();
    for (offered, status, chosen, expected) in [
        (format!("bearer, {text}"), 101, None, Some("bearer")),
        (
            format!("chat, bearer, {text}"),
            101,
            Some("chat"),
            Some("chat"),
        ),
        (format!("chat, bearer, {text}"), 101, None, Some("bearer")),
        // RFC 6455 §4.2.2: one of those that the client offers, as it spells it.
        (format!("BeaReR, {text}"), 101, None, Some("BeaReR")),
        (format!("bearer, {text}"), 400, None, None),
        (format!("bearer, {text}"), 200, None, None),
    ] {
        let inner = service_fn(async |_: Request<()>| {
            let mut response = Response::builder().status(status);
            if let Some(chosen) = chosen {
                response = response.header(SEC_WEBSOCKET_PROTOCOL, chosen);
            }
            Ok::<_, Infallible>(response.body(()).unwrap())
        });
        let request = with(at("/"), &SEC_WEBSOCKET_PROTOCOL, &offered);
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        let answer = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
        assert_eq!(answer.map(|it| it.to_str().unwrap()), expected, "{status}");
    }
    // RFC 8441: over HTTP/2 a WebSocket begins with CONNECT, and 200.
    let ok = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let connect = Request::connect("localhost").body(()).unwrap();
    let request = with(connect, &SEC_WEBSOCKET_PROTOCOL, format!("bearer, {text}"));
    let response = layer.layer(ok).oneshot(request).await.unwrap();
    assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "bearer");
}

/// A source that logs what it is shown logs no token.
#[tokio::test]
async fn debug_of_a_request_shows_no_values() {
    let layer = SessionLayer::new(manager(&Spy::default()));
    let seen: Arc<Mutex<String>> = Arc::default();
    let note = Arc::clone(&seen);
    let source = TokenSource::custom(move |request: &RequestHead<'_>| {
        *note.lock().unwrap() = format!("{request:?}");
        None
    });
    let layer = layer.token_sources([source]);
    let request = with(at("/a?access_token=hunter2"), &OLD, "v1 hunter2");
    assert_eq!(found(&layer, request).await, Err(401));
    let seen = seen.lock().unwrap();
    assert!(seen.contains("/a") && seen.contains("x-old"), "{seen}");
    assert!(!seen.contains("hunter2"), "{seen}");
}

#[test]
fn names_that_cannot_be_are_refused() {
    for bad in ["", "a b", "a=b", "a;b", "ä", "a\n"] {
        assert!(TokenSource::cookie(bad).is_err(), "{bad:?}");
        assert!(TokenSource::header(bad).is_err(), "{bad:?}");
        assert!(TokenSource::query(bad).is_err(), "{bad:?}");
    }
    for bad in ["a&b", "a%62", "a+b"] {
        assert!(TokenSource::query(bad).is_err(), "{bad:?}");
    }
    let shown = format!("{:?}", sources());
    assert_eq!(
        shown,
        "[authorization, cookie(session), header(x-session), websocket_protocol, query(access_token), custom]"
    );
}

/// A layer further out that hides the token does not hide it from one further in; a second token is refused.
#[tokio::test]
async fn nested_layers_read_the_same_protocol() {
    let manager = manager(&Spy::default());
    let token = manager.set_token("al", None).await.unwrap();
    let text = token.expose_secret();
    let layer = SessionLayer::new(manager).token_sources([TokenSource::websocket_protocol()]);
    let inner = service_fn(async |request: Request<()>| {
        let user: Option<&User<Profile>> = request.extensions().get();
        let user = user.map(|user| user.id().to_owned());
        let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL);
        let offered = offered.map(|value| (value.clone(), value.is_sensitive()));
        Ok::<_, Infallible>(Response::new((user, offered)).map(Some))
    });
    let optional = layer.clone().optional();
    for [outer, inside] in [[&layer, &optional], [&optional, &layer], [&layer, &layer]] {
        let service = outer.layer(inside.layer(inner));
        let offer = with(
            at("/"),
            &SEC_WEBSOCKET_PROTOCOL,
            format!("a, bearer, {text}, b"),
        );
        let response = service.oneshot(offer).await.unwrap();
        let (user, offered) = response.into_body().expect("an answer of the service");
        assert_eq!(user.as_deref(), Some("al"));
        assert_eq!(offered, Some((HeaderValue::from_static("a, b"), true)));
    }
    let two = with(
        at("/"),
        &SEC_WEBSOCKET_PROTOCOL,
        format!("bearer, {text}, bearer, {text}"),
    );
    assert_eq!(found(&optional, two).await, Err(400));
}

/// A header that comes in pieces is sensitive in each of them.
#[tokio::test]
async fn every_piece_of_a_cookie_is_sensitive() {
    let layer = SessionLayer::new(manager(&Spy::default())).optional();
    let layer = layer.token_sources([TokenSource::cookie("session").unwrap()]);
    let inner = service_fn(async |request: Request<()>| {
        let cookies = request.headers().get_all(COOKIE);
        assert_eq!(cookies.iter().count(), 2);
        assert!(cookies.iter().all(HeaderValue::is_sensitive));
        Ok::<_, Infallible>(Response::new(()))
    });
    let request = with(with(at("/"), &COOKIE, "a=b"), &COOKIE, "session=x");
    layer.layer(inner).oneshot(request).await.unwrap();
}

proptest! {
    /// Whatever bytes are where a source looks: no panic, and no call of the store unless there is something that has
    /// the form of a token.
    #[test]
    fn only_what_may_be_a_token_costs_a_store_call(
        source in 0..6_usize,
        fields in vec(field(), 0..3),
        query in "([ -~&&[^#\"<>]]{0,10}|TOKEN){0,4}",
    ) {
        let spy = Spy::default();
        let layer = SessionLayer::new(manager(&spy)).token_sources([sources()[source].clone()]);
        let name = [AUTHORIZATION, COOKIE, HEADER, SEC_WEBSOCKET_PROTOCOL, AUTHORIZATION, OLD][source].clone();
        let mut request = Request::new(());
        let query = query.replace("TOKEN", &format!("access_token={}", forged("al", 1))).replace(' ', "&access_token=");
        if let Ok(uri) = format!("/?{query}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
        let mut bytes = Vec::new();
        for value in fields {
            let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
            bytes.push(value.as_bytes().to_vec());
            request.headers_mut().append(&name, value);
        }
        let runtime = Runtime::new().unwrap();
        let required = runtime.block_on(found(&layer, request));
        prop_assert!(matches!(required, Err(400 | 401)), "{:?}", required);
        let calls = spy.calls();
        let token = forged("al", 1);
        let there = match source {
            4 => query.contains(&token),
            _ => bytes.iter().any(|value| value.windows(token.len()).any(|part| part == token.as_bytes())),
        };
        prop_assert!(calls <= u64::from(there), "{calls} calls");
    }
}

/// A well-formed token is asked for, wherever a source finds it.
#[tokio::test]
async fn a_forged_token_costs_one_store_call() {
    let token = forged("al", 1);
    let requests = [
        with(at("/"), &AUTHORIZATION, format!("Bearer {token}")),
        with(at("/"), &COOKIE, format!("session={token}")),
        with(at("/"), &HEADER, &token),
        with(at("/"), &SEC_WEBSOCKET_PROTOCOL, format!("bearer, {token}")),
        at(&format!("/?access_token={token}")),
        with(at("/"), &OLD, format!("v1 {token}")),
    ];
    for (source, request) in sources().into_iter().zip(requests) {
        let spy = Spy::default();
        let layer = SessionLayer::new(manager(&spy)).token_sources([source]);
        assert_eq!(found(&layer, request).await, Err(401));
        assert_eq!(spy.calls(), 1);
    }
}

/// Bytes, often such that nearly mean something.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"bearer".to_vec()),
        Just(b"Bearer ".to_vec()),
        Just(b"session".to_vec()),
        Just(b"tbs1.YWw.".to_vec()),
        Just(b"=".to_vec()),
        Just(b"; ".to_vec()),
        Just(b", ".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"v1 ".to_vec()),
        Just(forged("al", 1).into_bytes()),
        vec(any::<u8>(), 0..8),
    ];
    vec(word, 0..8).prop_map(|words| words.concat())
}
