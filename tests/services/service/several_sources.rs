//! More than one token in a request, and tokens in queries that are written in another way.

use http::{
    HeaderName, HeaderValue, Request,
    header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL},
};
use tower_bearer_session::{
    SessionLayer,
    middleware::{RequestHead, TokenSource},
};

use super::{Profile, Spy, bearer, logged_in, sources::found};

const HEADER: HeaderName = HeaderName::from_static("x-session");

/// A token in each place that a source reads.
fn places(token: &str) -> [(TokenSource, HeaderName, String); 5] {
    let protocol = TokenSource::websocket_protocol();
    let custom = TokenSource::custom(|request: &RequestHead<'_>| {
        Some(request.headers().get("x-old")?.to_str().ok()?.to_owned())
    });
    [
        (
            TokenSource::authorization(),
            AUTHORIZATION,
            format!("Bearer {token}"),
        ),
        (
            TokenSource::cookie("session").unwrap(),
            COOKIE,
            format!("session={token}"),
        ),
        (
            TokenSource::header("x-session").unwrap(),
            HEADER,
            token.to_owned(),
        ),
        (protocol, SEC_WEBSOCKET_PROTOCOL, format!("bearer, {token}")),
        (custom, HeaderName::from_static("x-old"), token.to_owned()),
    ]
}

/// A layer that reads all places, the query as well.
fn everywhere(layer: &SessionLayer<Profile>) -> SessionLayer<Profile> {
    let query = TokenSource::query("access_token").unwrap();
    let sources = places("").map(|(source, ..)| source);
    layer
        .clone()
        .token_sources(sources.into_iter().chain([query]))
}

fn ask(uri: &str, fields: &[(HeaderName, String)]) -> Request<()> {
    let mut request = Request::get(uri).body(()).unwrap();
    for (name, value) in fields {
        let value = HeaderValue::try_from(value).unwrap();
        request.headers_mut().append(name, value);
    }
    request
}

/// RFC 6750 §2: a client must not use more than one method to send its token, even if it is the same one; §3.1: 400.
#[tokio::test]
async fn a_token_in_two_places_is_refused() {
    let (token, layers) = logged_in(&Spy::default(), "al").await;
    let token = token.expose_secret();
    let in_query = format!("/?access_token={token}");
    for layer in layers.map(|layer| everywhere(&layer)) {
        for second in [token, "x"] {
            let fields = places(token).map(|(_, name, value)| (name, value));
            let others = places(second).map(|(_, name, value)| (name, value));
            for (at, field) in fields.iter().enumerate() {
                let alone = std::slice::from_ref(field);
                assert_eq!(found(&layer, ask("/", alone)).await, Ok("al".to_owned()));
                assert_eq!(found(&layer, ask(&in_query, alone)).await, Err(400));
                for other in &others[at + 1..] {
                    let both = ask("/", &[field.clone(), other.clone()]);
                    assert_eq!(found(&layer, both).await, Err(400), "{field:?} {other:?}");
                }
            }
        }
    }
}

/// Another scheme, and a cookie or header that is not there, is no method of sending a token.
#[tokio::test]
async fn what_is_no_token_is_no_second_one() {
    let (token, [layer, _]) = logged_in(&Spy::default(), "al").await;
    let layer = everywhere(&layer);
    let cookie = (COOKIE, format!("session={}", token.expose_secret()));
    for authorization in ["", " ", "Basic eA==", "Digest x", "Bearerx"] {
        let authorization = (AUTHORIZATION, authorization.to_owned());
        let request = ask("/", &[cookie.clone(), authorization]);
        assert_eq!(found(&layer, request).await, Ok("al".to_owned()));
    }
    for empty in ["session=", "session=\"\"", "other=x"] {
        let fields = [(AUTHORIZATION, bearer(&token)), (COOKIE, empty.to_owned())];
        assert_eq!(
            found(&layer, ask("/?a=b", &fields)).await,
            Ok("al".to_owned())
        );
    }
}

/// The query is read as `application/x-www-form-urlencoded`: what an encoder may write differently is the same.
#[tokio::test]
async fn a_query_is_decoded() {
    let (token, [layer, _]) = logged_in(&Spy::default(), "al").await;
    let text = token.expose_secret();
    let layer = layer.token_sources([TokenSource::query("access_token").unwrap()]);
    let fine = Ok("al".to_owned());
    let escaped = text.replace('.', "%2E");
    let all: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for (query, expected) in [
        (format!("access_token={escaped}"), &fine),
        (format!("access_token={all}"), &fine),
        (format!("access%5Ftoken={text}"), &fine),
        (format!("%61ccess%5ftoken={text}&b=%"), &fine),
        (format!("&&a=b&access_token={text}&"), &fine),
        (
            format!("access_token={text}&access%5Ftoken={text}"),
            &Err(400),
        ),
        (format!("access%5Ftoken={text}&access%5ftoken=x"), &Err(400)),
        (format!("access_token={text}+"), &Err(401)),
        (format!("access+token={text}"), &Err(401)),
        (format!("access%255Ftoken={text}"), &Err(401)),
        (
            format!("access_token={}", text.replace('.', "%252E")),
            &Err(401),
        ),
        ("access_token=%ff".to_owned(), &Err(401)),
        ("access_token=%".to_owned(), &Err(401)),
    ] {
        let request = ask(&format!("/?{query}"), &[]);
        assert_eq!(&found(&layer, request).await, expected, "{query}");
    }
}
