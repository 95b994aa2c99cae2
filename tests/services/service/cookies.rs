//! Session cookies: their attributes, which of them the layer clears, and by which source a token came.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, SET_COOKIE},
};
use proptest::{collection::vec, prelude::*, sample::select};
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    ErrorKind, MemoryStore, Rejection, Session, SessionLayer, TokenManager, TokenOptions, User,
    jwt::{JwtConfig, SigningKey},
    middleware::{
        JwtLayer, RequestHead, RequireRecentAuthentication, RequireScope, SameSite, SessionCookie,
        TokenSource,
    },
};
use tower_http::csrf::CsrfLayer;

use super::{Profile, Spy, bearer, logged_in};
use crate::stores::DAY;

fn cookie() -> SessionCookie {
    SessionCookie::new("session").unwrap()
}

fn with_cookies<V: AsRef<[u8]>>(cookies: impl IntoIterator<Item = V>) -> Request<()> {
    let mut request = Request::new(());
    for value in cookies {
        let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
        request.headers_mut().append(COOKIE, value);
    }
    request
}

/// The status and the `Set-Cookie` fields of a response to a request; the handler adds these fields to its own.
async fn answer(
    layer: &SessionLayer<Profile>,
    request: Request<()>,
    fields: &[(&'static str, &str)],
) -> (u16, Vec<String>) {
    let inner = service_fn(async |_: Request<()>| {
        let mut response = Response::new(());
        for (name, value) in fields {
            let value = HeaderValue::try_from(*value).unwrap();
            response.headers_mut().append(*name, value);
        }
        Ok::<_, Infallible>(response)
    });
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    (response.status().as_u16(), cookies_of(response.headers()))
}

fn cookies_of(headers: &HeaderMap) -> Vec<String> {
    let set = headers.get_all(SET_COOKIE).iter();
    Vec::from_iter(set.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()))
}

/// The prefix says what the attributes are, because browsers check them by it.
#[test]
fn the_prefix_follows_from_the_attributes() {
    let plain = cookie;
    for (cookie, expected) in [
        (
            plain(),
            "__Host-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0",
        ),
        (
            plain().same_site(SameSite::Strict),
            "__Host-session=; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=0",
        ),
        (
            plain().same_site(SameSite::None),
            "__Host-session=; HttpOnly; SameSite=None; Secure; Path=/; Max-Age=0",
        ),
        (
            plain().path("/").unwrap(),
            "__Host-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0",
        ),
        (
            plain().path("/shop").unwrap(),
            "__Secure-session=; HttpOnly; SameSite=Lax; Secure; Path=/shop; Max-Age=0",
        ),
        (
            plain().domain("example.com").unwrap(),
            "__Secure-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Domain=example.com; Max-Age=0",
        ),
        (
            plain().insecure_for_development(),
            "session=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0",
        ),
        (
            plain()
                .insecure_for_development()
                .domain("shop.example.com")
                .unwrap()
                .path("/a")
                .unwrap()
                .until_browser_closes(),
            "session=; HttpOnly; SameSite=Lax; Path=/a; Domain=shop.example.com; Max-Age=0",
        ),
    ] {
        let value = HeaderValue::from(cookie.clear());
        assert_eq!(value, expected);
        let (name, _) = expected.split_once('=').unwrap();
        assert_eq!(cookie.name(), name);
        assert_eq!(cookie.source(), TokenSource::cookie(name).unwrap());
    }
}

/// RFC 6265bis §4.1.1: a name is a token. What could end an attribute, or a prefix that promises too much, is refused.
#[test]
fn what_is_not_valid_in_a_cookie_is_refused() {
    let config = Some(ErrorKind::Config);
    for name in [
        "", " ", "a b", "a;b", "a=b", "a,b", "\"a\"", "a\r\n", "ä", "a\0",
    ] {
        let refused = SessionCookie::new(name).err().map(|it| it.kind());
        assert_eq!(refused, config, "{name:?}");
    }
    for name in ["__Host-a", "__host-a", "__Secure-a", "__SECURE-", "__Host-"] {
        let error = SessionCookie::new(name).unwrap_err();
        assert!(error.to_string().contains("prefix"), "{error}");
    }
    for name in ["a", "__Host", "SID", "$!#%&'*+-.^_`|~9"] {
        assert_eq!(
            SessionCookie::new(name).unwrap().name(),
            format!("__Host-{name}")
        );
    }
    for domain in [
        "",
        ".",
        ".a.example",
        "a.example.",
        "a;b",
        "a b",
        "a/b",
        "ä",
    ] {
        let refused = cookie().domain(domain).err().map(|it| it.kind());
        assert_eq!(refused, config, "{domain:?}");
    }
    for path in ["", "a", "/a;b", "/a b", "/\r\n", "/ä"] {
        let refused = cookie().path(path).err().map(|it| it.kind());
        assert_eq!(refused, config, "{path:?}");
    }
}

/// Neither logs of headers nor `Debug` show the token.
#[tokio::test]
async fn a_cookie_with_a_token_is_sensitive() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let login = manager.set_token_with("al", TokenOptions::new());
    let issued = login.await.unwrap();
    let set = cookie().set(&issued);
    let secret = issued.token.expose_secret();
    assert!(!format!("{set:?}").contains(secret));
    let value = HeaderValue::from(set);
    assert!(value.is_sensitive());
    assert!(value.to_str().unwrap().contains(secret));
    assert!(!format!("{:?} {:?}", cookie(), cookie().source()).contains(secret));
}

/// Handlers know the source of a token, one custom source from another.
#[tokio::test]
async fn a_session_knows_its_source() {
    let (token, [required, _]) = logged_in(&Spy::default(), "al").await;
    let text = token.expose_secret();
    let custom = |name: &'static str| {
        TokenSource::custom(move |request: &RequestHead<'_>| {
            Some(request.headers().get(name)?.to_str().ok()?.to_owned())
        })
    };
    let sources = [
        TokenSource::authorization(),
        cookie().source(),
        TokenSource::cookie("session").unwrap(),
        TokenSource::header("x-session").unwrap(),
        TokenSource::header("x-other").unwrap(),
        TokenSource::websocket_protocol(),
        TokenSource::query("token").unwrap(),
        TokenSource::query("access_token").unwrap(),
        custom("x-one"),
        custom("x-two"),
    ];
    let places = [
        ("authorization", format!("Bearer {text}")),
        ("cookie", format!("__Host-session={text}")),
        ("cookie", format!("session={text}")),
        ("x-session", text.to_owned()),
        ("x-other", text.to_owned()),
        ("sec-websocket-protocol", format!("bearer, {text}")),
        ("?token=", text.to_owned()),
        ("?access_token=", text.to_owned()),
        ("x-one", text.to_owned()),
        ("x-two", text.to_owned()),
    ];
    let inner = service_fn(async |request: Request<()>| {
        let session = request.extensions().get::<Session<Profile>>();
        let source = session.map(|session| session.source().clone());
        Ok::<_, Infallible>(Response::new(source))
    });
    let all = required.token_sources(sources.clone());
    for layer in [all.clone(), all.first_source_decides()] {
        for (index, (name, value)) in places.iter().enumerate() {
            let request = match name.strip_prefix('?') {
                Some(name) => Request::get(format!("/?{name}{value}")),
                None => Request::get("/").header(*name, value),
            };
            let request = request.body(()).unwrap();
            let response = layer.layer(inner).oneshot(request).await.unwrap();
            let found = response.into_body().expect("a session");
            let equal = sources.iter().map(|source| *source == found);
            let expected = (0..sources.len()).map(|other| other == index);
            assert!(equal.eq(expected), "{found:?}");
            assert_eq!(found.is_cookie(), *name == "cookie");
        }
    }
}

/// A source that only reads a cookie, and any other source, sets none.
#[tokio::test]
async fn only_a_session_cookie_is_cleared() {
    let (_, layers) = logged_in(&Spy::default(), "al").await;
    for layer in layers {
        let sources = [
            TokenSource::cookie("session").unwrap(),
            TokenSource::header("x-session").unwrap(),
            cookie().source(),
        ];
        let layer = layer.token_sources(sources);
        let (_, set) = answer(&layer, with_cookies(["session=x"]), &[]).await;
        assert!(set.is_empty(), "{set:?}");
        let (_, set) = answer(&layer, with_cookies(["__Host-session=x"]), &[]).await;
        assert_eq!(set.len(), 1, "{set:?}");
        let (_, set) = answer(&layer, with_cookies(["__Host-session="]), &[]).await;
        assert!(set.is_empty(), "an empty cookie is no token: {set:?}");
        // The first source decides.
        let mut both = with_cookies(["__Host-session=x"]);
        let header = HeaderValue::from_static("y");
        both.headers_mut().insert("x-session", header);
        let (_, set) = answer(&layer.first_source_decides(), both, &[]).await;
        assert!(set.is_empty(), "{set:?}");
    }
}

/// Of two different cookies of a name, one is from somebody else, perhaps an attacker on a sibling domain, who would be
/// served alone if the other one were cleared.
#[tokio::test]
async fn a_cookie_beside_a_planted_one_is_not_cleared() {
    let (token, layers) = logged_in(&Spy::default(), "al").await;
    let live = token.expose_secret();
    let cookie = cookie().domain("example.com").unwrap();
    for layer in layers {
        let layer = layer.token_sources([cookie.source()]);
        for [one, other] in [[live, "x"], ["x", live], ["x", "y"]] {
            let both = format!("__Secure-session={one}; __Secure-session={other}");
            let (_, set) = answer(&layer, with_cookies([both]), &[]).await;
            assert!(set.is_empty(), "{set:?}");
        }
        // Twice the same is one cookie.
        let twice = with_cookies(["__Secure-session=x", "__Secure-session=x"]);
        let (_, set) = answer(&layer, twice, &[]).await;
        assert_eq!(set.len(), 1);
        // Nobody else can have made this one, which no client can send as a token.
        let unreadable = with_cookies([b"__Secure-session=\xff"]);
        let (_, set) = answer(&layer, unreadable, &[]).await;
        assert_eq!(set.len(), 1);
    }
}

/// A shared cache would log others out, too.
#[tokio::test]
async fn a_shared_response_clears_no_cookie() {
    let (_, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let layer = optional.token_sources([cookie().source()]);
    let dead = || with_cookies(["__Host-session=x"]);
    for fields in [
        &[("cache-control", "public, max-age=60")][..],
        &[("cache-control", "S-MaxAge=60")],
        &[
            ("cache-control", "no-store"),
            ("cdn-cache-control", "public"),
        ],
        &[("surrogate-control", "s-maxage=60")],
    ] {
        let (status, set) = answer(&layer, dead(), fields).await;
        assert_eq!((status, set), (200, vec![]), "{fields:?}");
    }
    for fields in [
        &[][..],
        &[("cache-control", "max-age=60")],
        &[("cache-control", "private")],
        &[("cdn-cache-control", "max-age=60")],
    ] {
        let (status, set) = answer(&layer, dead(), fields).await;
        assert_eq!((status, set.len()), (200, 1), "{fields:?}");
    }
}

/// A gRPC client has no cookies.
#[tokio::test]
async fn a_grpc_response_clears_no_cookie() {
    let (_, layers) = logged_in(&Spy::default(), "al").await;
    let call = || {
        let mut call = with_cookies(["__Host-session=x"]);
        *call.method_mut() = Method::POST;
        let grpc = HeaderValue::from_static("application/grpc");
        call.headers_mut().insert(CONTENT_TYPE, grpc);
        call
    };
    for layer in layers {
        let layer = layer.token_sources([cookie().source()]);
        assert_eq!(answer(&layer, call(), &[]).await.1.len(), 1);
        assert_eq!(answer(&layer.grpc(), call(), &[]).await, (200, vec![]));
    }
}

/// A service without the store does not know which sessions are live, nor the keys of the next rotation.
#[tokio::test]
async fn a_layer_without_sessions_clears_no_cookie() {
    let key = SigningKey::hs256("k", &[7; 32]).unwrap();
    let verifier = JwtConfig::new(key).verifier().unwrap();
    let layer = JwtLayer::new(verifier).token_sources([cookie().source()]);
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    for (layer, status) in [(layer.clone(), 401), (layer.optional(), 200)] {
        let request = with_cookies(["__Host-session=x"]);
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(!response.headers().contains_key(SET_COOKIE));
    }
}

/// A guard, an extractor or a handler that refuses a live session says nothing of its token.
#[tokio::test]
async fn a_refusal_of_a_live_session_clears_no_cookie() {
    let (token, layers) = logged_in(&Spy::default(), "al").await;
    // So that the login is not of this very moment.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let refuse = service_fn(async |_: Request<()>| {
        let refusal = Response::<String>::from(Rejection::InvalidToken);
        Ok::<_, Infallible>(refusal)
    });
    let scope = RequireScope::new("orders:write").unwrap();
    let recent = RequireRecentAuthentication::new(Duration::ZERO);
    let scope = scope.user_type::<Profile>().layer(refuse);
    let recent = recent.user_type::<Profile>().layer(refuse);
    for layer in layers {
        let layer = layer.token_sources([cookie().source()]);
        let ask = || with_cookies([format!("__Host-session={}", token.expose_secret())]);
        for (response, status) in [
            (layer.layer(scope.clone()).oneshot(ask()).await, 403),
            (layer.layer(recent.clone()).oneshot(ask()).await, 401),
            (layer.layer(refuse).oneshot(ask()).await, 401),
        ] {
            let response = response.unwrap();
            assert_eq!(response.status(), status);
            assert!(!response.headers().contains_key(SET_COOKIE), "{status}");
        }
        // Whatever refuses a request with a dead token, its cookie is cleared.
        let dead = layer
            .layer(scope.clone())
            .oneshot(with_cookies(["__Host-session=x"]));
        assert_eq!(cookies_of(dead.await.unwrap().headers()).len(), 1);
    }
}

/// A JWT by another key may be by one that this process does not know yet. One that the store does not know is dead.
#[tokio::test]
async fn an_unverified_jwt_is_not_cleared() {
    let [known, unknown] = [7, 8].map(|byte| {
        let key = SigningKey::hs256("k", &[byte; 32]).unwrap();
        TokenManager::builder(MemoryStore::new())
            .load_user(async |name: String| Ok::<_, Infallible>(Some(Profile { name })))
            .jwt(JwtConfig::new(key))
            .build()
            .unwrap()
    });
    let login = async |manager: &TokenManager<Profile>| {
        let options = TokenOptions::new().max_lifetime(DAY);
        let issued = manager.set_token_with("al", options).await.unwrap();
        issued.token.expose_secret().to_owned()
    };
    let (new, dead) = (login(&unknown).await, login(&known).await);
    known.delete_token(&dead).await.unwrap();
    let layer = SessionLayer::new(known).token_sources([cookie().source()]);
    for (layer, status) in [(layer.clone(), 401), (layer.optional(), 200)] {
        for (token, cleared) in [(&new, 0), (&dead, 1), (&"x".to_owned(), 1)] {
            let request = with_cookies([format!("__Host-session={token}")]);
            let (found, set) = answer(&layer, request, &[]).await;
            assert_eq!((found, set.len()), (status, cleared), "{token}");
        }
    }
}

/// Requests whose token came in a header need no check of their origin; all others get it, logins included.
#[tokio::test]
async fn only_cookies_need_a_check_of_the_origin() {
    let (token, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let layer = optional.token_sources([TokenSource::authorization(), cookie().source()]);
    let who = service_fn(async |request: Request<()>| {
        let user = request.extensions().get::<User<Profile>>();
        let user = user.map_or("nobody", |user| user.id()).to_owned();
        Ok::<_, Infallible>(Response::new(user))
    });
    let checked = CsrfLayer::new().layer(who);
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let session = request.extensions().get::<Session<Profile>>();
        let by_header = session.is_some_and(|session| !session.source().is_cookie());
        let checked = checked.clone();
        async move {
            match by_header {
                true => who.oneshot(request).await,
                false => checked.oneshot(request).await,
            }
        }
    }));
    let cookie = (
        COOKIE,
        format!("__Host-session={}", token.expose_secret()),
        "al",
    );
    let header = (AUTHORIZATION, bearer(&token), "al");
    let dead = (COOKIE, "__Host-session=x".to_owned(), "nobody");
    let none = (CACHE_CONTROL, "no-cache".to_owned(), "nobody");
    for (method, site, origin, refuses_others) in [
        (Method::POST, Some("cross-site"), None, true),
        (Method::POST, Some("same-site"), None, true),
        (
            Method::POST,
            Some("cross-site"),
            Some("https://evil.example"),
            true,
        ),
        (Method::DELETE, None, Some("https://evil.example"), true),
        (Method::POST, None, Some("null"), true),
        (
            Method::POST,
            Some("same-origin"),
            Some("https://shop.example"),
            false,
        ),
        (Method::POST, None, Some("https://shop.example"), false),
        // Not a browser.
        (Method::POST, None, None, false),
        (Method::GET, Some("cross-site"), None, false),
    ] {
        for (field, value, user) in [&cookie, &header, &dead, &none] {
            let request = Request::builder()
                .method(&method)
                .uri("/")
                .header(field, value);
            let request = request.header("host", "shop.example");
            let mut request = request.body(()).unwrap();
            for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                if let Some(value) = value {
                    let value = HeaderValue::from_static(value);
                    request.headers_mut().insert(name, value);
                }
            }
            let response = service.clone().oneshot(request).await.unwrap();
            let is_refused = refuses_others && *field != AUTHORIZATION;
            let expected = match is_refused {
                true => (StatusCode::FORBIDDEN, ""),
                false => (StatusCode::OK, *user),
            };
            let found = (response.status(), response.body().as_str());
            assert_eq!(found, expected, "{method} {site:?} {origin:?} {field}");
        }
    }
}

/// Cookies in all the ways in which clients may write them, and in ways in which they may not.
fn cookie_field() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("__Host-session"),
        Just("__host-session"),
        Just("session"),
        Just("__Host-session2"),
        Just(""),
        Just("theme"),
    ];
    let value = prop_oneof![
        3 => Just(b"<live>".to_vec()),
        2 => Just(b"dead".to_vec()),
        1 => Just(b"\"<live>\"".to_vec()),
        1 => Just(Vec::new()),
        2 => vec(select((b' '..=b'\xff').filter(|byte| *byte != 0x7f).collect::<Vec<_>>()), 0..6),
    ];
    let pair = (name, select(vec!["=", " = ", "==", ""]), value)
        .prop_map(|(name, equals, value)| [name.as_bytes(), equals.as_bytes(), &value].concat());
    let pairs = (vec(pair, 0..4), select(vec!["; ", ";", " ;", ","]));
    pairs.prop_map(|(pairs, separator)| pairs.join(separator.as_bytes()))
}

/// Whatever cookies a request has: the layer does not panic, clears at most its own cookie, and that only if the request
/// has it and is not let through with a session.
#[test]
fn arbitrary_cookies_clear_at_most_the_dead_one() {
    let runtime = Runtime::new().unwrap();
    let (token, layers) = runtime.block_on(logged_in(&Spy::default(), "al"));
    let layers = layers.map(|layer| layer.token_sources([cookie().source()]));
    let cleared = HeaderValue::from(cookie().clear());
    let seen = Arc::new(Mutex::new([0; 2]));
    let counts = Arc::clone(&seen);
    proptest!(ProptestConfig::with_cases(2000), move |(fields in vec(cookie_field(), 0..3))| {
        let live = token.expose_secret().as_bytes();
        let fields: Vec<Vec<u8>> = fields.iter().map(|field| replace(field, live)).collect();
        for layer in &layers {
            let inner = service_fn(async |request: Request<()>| {
                let mut response = Response::new(request.extensions().get::<Session<Profile>>().is_some());
                let theme = HeaderValue::from_static("theme=dark");
                response.headers_mut().append(SET_COOKIE, theme);
                Ok::<_, Infallible>(response)
            });
            let call = layer.layer(inner).oneshot(with_cookies(&fields));
            let response = runtime.block_on(call).unwrap();
            let has_session = *response.body();
            let is_ok = response.status() == StatusCode::OK;
            prop_assert!(is_ok || response.status() == StatusCode::UNAUTHORIZED);
            let mut set = Vec::from_iter(response.headers().get_all(SET_COOKIE));
            if is_ok {
                prop_assert_eq!(set.remove(0), "theme=dark");
            }
            let clears = !set.is_empty();
            prop_assert!(set.is_empty() || set == [&cleared]);
            prop_assert!(!(clears && has_session));
            let names_it = fields.iter().any(|field| field.windows(14).any(|it| it == b"__Host-session"));
            prop_assert!(!clears || names_it);
            let mut counts = counts.lock().unwrap();
            counts[0] += u32::from(clears);
            counts[1] += u32::from(has_session);
        }
    });
    let [clears, sessions] = *seen.lock().unwrap();
    assert!(clears > 100 && sessions > 100, "{clears} {sessions}");
}

fn replace(field: &[u8], live: &[u8]) -> Vec<u8> {
    match field.windows(6).position(|it| it == b"<live>") {
        Some(at) => {
            let rest = replace(&field[at + 6..], live);
            [&field[..at], live, &rest].concat()
        }
        None => field.to_vec(),
    }
}
