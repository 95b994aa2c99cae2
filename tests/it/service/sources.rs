use std::convert::Infallible;

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

const HEADER: HeaderName = HeaderName::from_static("x-session");

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
async fn found(layer: &SessionLayer<Profile>, request: Request<()>) -> Result<String, u16> {
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
        (&websocket, protocols(format!("Bearer, {text}")), &missing),
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

/// The first source that has a token decides, even if the token is no good.
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
    let layer = SessionLayer::new(manager);
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
    let offered = with(
        at("/"),
        &SEC_WEBSOCKET_PROTOCOL,
        "chat, bearer, hunter2, superchat",
    );
    let shown = layer
        .layer(inner)
        .oneshot(offered)
        .await
        .unwrap()
        .into_body();
    assert!(
        shown.contains("\"chat, superchat\"") && !shown.contains("hunter2"),
        "{shown}"
    );
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

proptest! {
    /// Whatever bytes are where a token may be: no panic, and no call of the store, because none of it is one.
    #[test]
    fn nothing_but_tokens_costs_a_store_call(
        fields in vec((0..4_usize, field()), 0..6),
        query in "[ -~&&[^#\"<>]]{0,40}",
    ) {
        let names = [AUTHORIZATION, COOKIE, HEADER, SEC_WEBSOCKET_PROTOCOL];
        let spy = Spy::default();
        let layer = SessionLayer::new(manager(&spy)).token_sources(sources());
        let mut request = Request::new(());
        if let Ok(uri) = format!("/?{}", query.replace(' ', "&access_token=")).parse::<Uri>() {
            *request.uri_mut() = uri;
        }
        for (name, value) in fields {
            let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
            request.headers_mut().append(&names[name], value);
        }
        let runtime = Runtime::new().unwrap();
        let required = runtime.block_on(found(&layer, request));
        prop_assert!(matches!(required, Err(400 | 401)), "{:?}", required);
        prop_assert_eq!(spy.calls(), 0);
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
        vec(any::<u8>(), 0..8),
    ];
    vec(word, 0..8).prop_map(|words| words.concat())
}
