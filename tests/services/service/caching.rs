//! What caches may keep of the responses (RFC 9111).

use std::{convert::Infallible, future::ready};

use http::{
    HeaderName, HeaderValue, Request, Response,
    header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, EXPIRES, VARY},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    ErrorKind, Rejection, SessionLayer,
    middleware::{RequestHead, TokenSource},
};

use super::{Mood, Profile, Spy, bearer, logged_in, request};

/// What CDNs obey before `Cache-Control`: targeted fields (RFC 9213), and their predecessor.
const TARGETED: [&str; 5] = [
    "cdn-cache-control",
    "cloudflare-cdn-cache-control",
    "vercel-cdn-cache-control",
    "netlify-cdn-cache-control",
    "surrogate-control",
];

/// All values of a header field, as one list (RFC 9110 §5.3).
fn list<B>(response: &Response<B>, name: &HeaderName) -> String {
    let values = response.headers().get_all(name).iter();
    let values = values.map(|value| value.to_str().expect("ASCII"));
    values.collect::<Vec<_>>().join(", ")
}

/// The response to a request, by a service that answers with these header fields.
async fn respond(
    layer: &SessionLayer<Profile>,
    request: Request<()>,
    status: u16,
    fields: &[(HeaderName, &'static str)],
) -> Response<()> {
    let mut prepared = Response::new(());
    *prepared.status_mut() = status.try_into().expect("a status");
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        prepared.headers_mut().append(name, value);
    }
    let inner = service_fn(move |_: Request<()>| ready(Ok::<_, Infallible>(prepared.clone())));
    let response = layer.layer(inner).oneshot(request).await;
    response.expect("an answer")
}

/// `Cache-Control` and `Vary` of [`respond`].
async fn answer(
    layer: &SessionLayer<Profile>,
    request: Request<()>,
    status: u16,
    fields: &[(HeaderName, &'static str)],
) -> [String; 2] {
    let response = respond(layer, request, status, fields).await;
    [
        list(&response, &CACHE_CONTROL),
        list(&response, &VARY).to_ascii_lowercase(),
    ]
}

fn sources() -> Vec<(TokenSource, [&'static str; 2])> {
    let custom = |_: &RequestHead<'_>| None;
    vec![
        // RFC 9111 §3.5 keeps shared caches from answers to requests with `Authorization`.
        (TokenSource::authorization(), ["", "authorization"]),
        (
            TokenSource::cookie("session").expect("a name"),
            ["private", "cookie"],
        ),
        (
            TokenSource::header("X-Session").expect("a name"),
            ["private", "x-session"],
        ),
        (
            TokenSource::websocket_protocol(),
            ["private", "sec-websocket-protocol"],
        ),
        (
            TokenSource::query("access_token").expect("a name"),
            ["private", ""],
        ),
        (TokenSource::custom(custom), ["private", ""]),
    ]
}

/// An optional layer's pages depend on the token: `Vary` names the header fields that may carry it, and where RFC 9111
/// §3.5 does not protect the answer, it is for the client's own cache only. Errors and upgrades are no exceptions.
#[tokio::test]
async fn a_page_is_not_served_to_somebody_else() {
    let (_, [_, optional]) = logged_in(&Spy::default(), "al").await;
    for (source, expected) in sources() {
        let layer = optional.clone().token_sources([source]);
        for status in [200, 304, 404, 500, 101] {
            let answer = answer(&layer, request::<&str>([]), status, &[]).await;
            assert_eq!(answer, expected, "{layer:?}, {status}");
        }
    }
    let several = sources().into_iter().map(|(source, _)| source);
    let layer = optional.token_sources(several);
    let answer = answer(&layer, request::<&str>([]), 200, &[]).await;
    let vary = "authorization, cookie, x-session, sec-websocket-protocol";
    assert_eq!(answer, ["private", vary]);
}

/// The same under a required layer; but where every answer is one to `Authorization`, RFC 9111 §3.5 is enough.
#[tokio::test]
async fn a_required_layer_leaves_to_the_rfc_what_it_protects() {
    let (token, [required, _]) = logged_in(&Spy::default(), "al").await;
    let live = || request([bearer(&token)]);
    assert_eq!(answer(&required, live(), 200, &[]).await, ["", ""]);
    let session = TokenSource::cookie("session").expect("a name");
    let layer = required.token_sources([TokenSource::authorization(), session]);
    assert_eq!(
        answer(&layer, live(), 200, &[]).await,
        ["private", "authorization, cookie"]
    );
    let mut request = request::<&str>([]);
    let cookie = HeaderValue::try_from(format!("session={}", token.expose_secret()));
    request.headers_mut().insert(COOKIE, cookie.expect("ASCII"));
    assert_eq!(
        answer(&layer, request, 200, &[]).await,
        ["private", "authorization, cookie"]
    );
}

/// A response that allows shared caches to reuse it although the request had `Authorization` varies by it, and is
/// private unless it was meant for them (RFC 9111 §3.5).
#[tokio::test]
async fn what_a_handler_allows_shared_caches_varies_by_the_token() {
    let (token, [required, _]) = logged_in(&Spy::default(), "al").await;
    for (said, expected) in [
        ("public, max-age=60", "public, max-age=60"),
        ("s-maxage=60", "s-maxage=60"),
        (
            "max-age=60, must-revalidate",
            "max-age=60, must-revalidate, private",
        ),
        ("proxy-revalidate", "proxy-revalidate, private"),
        ("max-age=60", "max-age=60"),
    ] {
        let said = [(CACHE_CONTROL, said)];
        let answer = answer(&required, request([bearer(&token)]), 200, &said).await;
        assert_eq!(answer, [expected, "authorization"]);
    }
}

/// What a handler says of shared caches stands. What it does not say of them is no permission.
#[tokio::test]
async fn the_choice_of_the_handler_stands() {
    let (_, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let session = TokenSource::cookie("session").expect("a name");
    let layer = optional.token_sources([session]);
    for (said, expected) in [
        ("public, max-age=60", "public, max-age=60"),
        ("max-age=5,S-MaxAge=60", "max-age=5,S-MaxAge=60"),
        ("no-store", "no-store"),
        ("Private, max-age=60", "Private, max-age=60"),
        ("max-age=60", "max-age=60, private"),
        ("no-cache", "no-cache, private"),
        (
            "max-age=60, must-revalidate",
            "max-age=60, must-revalidate, private",
        ),
        ("", "private"),
        // It speaks of one field; and a comma in quotes separates nothing.
        (
            r#"private="set-cookie", max-age=60"#,
            r#"private="set-cookie", max-age=60, private"#,
        ),
        (r#"ext="a, public""#, r#"ext="a, public", private"#),
        // So does one after an escaped quote.
        (
            r#"ext="a\", public, \"""#,
            r#"ext="a\", public, \"", private"#,
        ),
    ] {
        let answer = answer(&layer, request::<&str>([]), 200, &[(CACHE_CONTROL, said)]).await;
        assert_eq!(answer, [expected, "cookie"], "{said}");
    }
    let two = [(CACHE_CONTROL, "max-age=1"), (CACHE_CONTROL, "public")];
    let answer = answer(&layer, request::<&str>([]), 200, &two).await;
    assert_eq!(answer[0], "max-age=1, public");
}

/// A targeted field replaces `Cache-Control` for a CDN (RFC 9213 §2): a page for one user is private in it as well.
#[tokio::test]
async fn a_targeted_field_permits_no_more_than_cache_control() {
    let (token, [required, _]) = logged_in(&Spy::default(), "al").await;
    let session = TokenSource::cookie("session").expect("a name");
    let cookie = required
        .clone()
        .token_sources([TokenSource::authorization(), session]);
    for name in TARGETED {
        let field = HeaderName::from_static(name);
        // A surrogate knows no `private` (Edge Architecture §2.3).
        let private = match name {
            "surrogate-control" => "no-store",
            _ => "private",
        };
        for (said, of_all, kept) in [
            ("max-age=60", None, false),
            ("max-age=60", Some("private"), false),
            ("max-age=60", Some("no-store"), false),
            ("max-age=60", Some("max-age=5"), false),
            ("max-age=60, must-revalidate", None, false),
            (r#"max-age=60, ext="public""#, None, false),
            ("max-age=60, no-store=?0", None, false),
            ("max-age=60, public=?0", None, false),
            ("public, max-age=60", None, true),
            ("s-maxage=60", None, true),
            ("no-store", None, true),
            ("max-age=60, private", None, name != "surrogate-control"),
            // The handler has said for all shared caches that the page is for everybody.
            ("max-age=60", Some("public, max-age=5"), true),
            ("max-age=60", Some("s-maxage=5"), true),
        ] {
            let mut fields = vec![(field.clone(), said)];
            fields.extend(of_all.map(|said| (CACHE_CONTROL, said)));
            let response = respond(&cookie, request([bearer(&token)]), 200, &fields).await;
            let expected = match kept {
                true => said.to_owned(),
                false => format!("{said}, {private}"),
            };
            assert_eq!(list(&response, &field), expected, "{name}, {of_all:?}");
            let vary = list(&response, &VARY).to_ascii_lowercase();
            assert_eq!(vary, "authorization, cookie", "{name}");
        }
        // RFC 9111 §3.5 protects the response to `Authorization`, unless the field loosens that.
        for (said, expected) in [
            ("max-age=60", "max-age=60".to_owned()),
            ("must-revalidate", format!("must-revalidate, {private}")),
            ("public", "public".to_owned()),
        ] {
            let fields = [(field.clone(), said)];
            let response = respond(&required, request([bearer(&token)]), 200, &fields).await;
            assert_eq!(list(&response, &field), expected, "{name}");
            let vary = list(&response, &VARY).to_ascii_lowercase();
            assert_eq!(vary, "authorization", "{name}: {said}");
        }
    }
}

/// `Vary` gets what is missing, and nothing twice.
#[tokio::test]
async fn vary_is_completed() {
    let (_, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let session = TokenSource::cookie("session").expect("a name");
    let layer = optional.token_sources([TokenSource::authorization(), session]);
    for (said, expected) in [
        (
            &["Accept-Encoding"][..],
            "accept-encoding, authorization, cookie",
        ),
        (&["Origin, Cookie"], "origin, cookie, authorization"),
        (&["COOKIE", "Authorization"], "cookie, authorization"),
        (&["*"], "*"),
        (&["Origin", "*"], "origin, *"),
    ] {
        let fields: Vec<_> = said.iter().map(|value| (VARY, *value)).collect();
        let answer = answer(&layer, request::<&str>([]), 200, &fields).await;
        assert_eq!(answer[1], expected, "{said:?}");
    }
}

/// Two layers around each other say it once.
#[tokio::test]
async fn nested_layers_say_it_once() {
    let (_, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let session = || TokenSource::cookie("session").expect("a name");
    let inside = optional.clone().token_sources([session()]);
    let outer = optional.token_sources([TokenSource::authorization(), session()]);
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let service = outer.layer(inside.layer(inner));
    let response = service.oneshot(Request::new(())).await.expect("an answer");
    assert_eq!(list(&response, &CACHE_CONTROL), "private");
    assert_eq!(
        list(&response, &VARY).to_ascii_lowercase(),
        "cookie, authorization"
    );
}

/// No cache keeps a refusal, whatever its status: some keep 400 and 503 unless they are told.
#[tokio::test]
async fn no_refusal_is_stored() {
    let spy = Spy::default();
    let (token, [layer, _]) = logged_in(&spy, "al").await;
    let live = bearer(&token);
    for (headers, mood, status) in [
        (vec![], Mood::Works, 401),
        (vec!["Bearer x"], Mood::Works, 401),
        (vec![&*live, &*live], Mood::Works, 400),
        (vec![&*live], Mood::Fails(ErrorKind::Timeout), 503),
        (vec![&*live], Mood::Fails(ErrorKind::Serialize), 500),
    ] {
        spy.set(mood);
        let inner =
            service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
        let response = layer.layer(inner).oneshot(request(&headers)).await;
        let response = response.expect("an answer");
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(list(&response, &CACHE_CONTROL), "no-store", "{status}");
        // Unless the application says so.
        let hooked = layer
            .clone()
            .on_rejection(|_: &Rejection, mut response: Response<String>| {
                let hour = HeaderValue::from_static("max-age=3600");
                response.headers_mut().insert(CACHE_CONTROL, hour);
                response
            });
        let response = hooked.layer(inner).oneshot(request(&headers)).await;
        let response = response.expect("an answer");
        assert_eq!(list(&response, &CACHE_CONTROL), "max-age=3600", "{status}");
    }
}

/// What a middleware between layer and handler says of all responses does not hold for a refusal.
#[tokio::test]
async fn no_refusal_keeps_what_was_said_of_the_page() {
    let (token, layers) = logged_in(&Spy::default(), "al").await;
    for layer in layers {
        let inner = service_fn(async |_: Request<()>| {
            let mut response = Response::<String>::from(Rejection::InvalidToken);
            for (name, value) in [
                (CACHE_CONTROL, "public, max-age=600"),
                (EXPIRES, "Thu, 01 Jan 2099 00:00:00 GMT"),
            ] {
                let value = HeaderValue::from_static(value);
                response.headers_mut().insert(name, value);
            }
            for name in TARGETED {
                let value = HeaderValue::from_static("max-age=600");
                response.headers_mut().insert(name, value);
            }
            Ok::<_, Infallible>(response)
        });
        let response = layer.layer(inner).oneshot(request([bearer(&token)])).await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), 401);
        assert_eq!(list(&response, &CACHE_CONTROL), "no-store");
        for name in TARGETED.iter().chain(&["expires"]) {
            assert!(!response.headers().contains_key(*name), "{name}");
        }
    }
}

/// An extractor's refusal under an optional layer is one, too; the same page for those who are logged in is not.
#[tokio::test]
async fn no_refusal_of_an_extractor_is_stored() {
    use axum::{Router, body::Body, routing::get};
    let (token, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let handler = async |_: tower_bearer_session::User<Profile>| ();
    let app = Router::new().route("/", get(handler)).layer(optional);
    for (header, status, cache) in [(None, 401, "no-store"), (Some(bearer(&token)), 200, "")] {
        let mut request = Request::new(Body::empty());
        if let Some(header) = header {
            let header = HeaderValue::try_from(header).expect("ASCII");
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        let response = app.clone().oneshot(request).await.expect("an answer");
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(list(&response, &CACHE_CONTROL), cache);
        assert_eq!(
            list(&response, &VARY).to_ascii_lowercase(),
            "authorization",
            "{status}"
        );
    }
}
