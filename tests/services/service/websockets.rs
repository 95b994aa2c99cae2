//! What a service sees of the protocols that a WebSocket client offers: never a token.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Request, Response,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{SessionLayer, User, middleware::TokenSource};

use super::{Profile, Spy, bearer, logged_in};

/// A request that offers these protocols.
fn offer(protocols: &str) -> Request<()> {
    let mut request = Request::new(());
    let protocols = HeaderValue::try_from(protocols).unwrap();
    request
        .headers_mut()
        .insert(SEC_WEBSOCKET_PROTOCOL, protocols);
    request
}

/// Answers with the user and the protocols that it sees.
async fn show(request: Request<()>) -> Result<Response<String>, Infallible> {
    let user = request.extensions().get::<User<Profile>>();
    let user = user.map_or("nobody", |user| user.id());
    let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL);
    let offered = offered.map_or("nothing", |value| value.to_str().unwrap());
    Ok(Response::new(format!("{user}: {offered}")))
}

/// Also if the order is wrong, and the layer lets the request through.
#[tokio::test]
async fn no_token_is_left_in_an_offer() {
    let (token, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let text = token.expose_secret();
    let protocol = TokenSource::websocket_protocol;
    let layer = optional.clone().token_sources([protocol()]);
    // This one lets all of them through, because it does not read them.
    let first = [TokenSource::authorization(), protocol()];
    let first = optional.token_sources(first).first_source_decides();
    for (offered, judged, seen) in [
        (format!("bearer, {text}"), "al: nothing", "nothing"),
        (format!("a, Bearer, {text}, b"), "al: a, b", "a, b"),
        (format!("BEARER,{text}"), "al: nothing", "nothing"),
        (format!("bearer, {text}, {text}"), "al: nothing", "nothing"),
        (format!("{text}, a, bearer, {text}"), "al: a", "a"),
        (format!("bearer, bearer, {text}"), "400", "nothing"),
        (format!("bearer, Bearer, {text}"), "400", "nothing"),
        (format!("{text}, bearer"), "nobody: nothing", "nothing"),
        (format!("bearer, {text}, bearer"), "400", "nothing"),
        (format!("bearer, {text}, a, bearer, {text}"), "400", "a"),
        ("bearer".to_owned(), "nobody: nothing", "nothing"),
        ("a, b".to_owned(), "nobody: a, b", "a, b"),
    ] {
        let response = layer.layer(service_fn(show)).oneshot(offer(&offered)).await;
        let response = response.unwrap();
        let answer = match response.status().as_u16() {
            200 => response.into_body(),
            status => status.to_string(),
        };
        assert_eq!(answer, judged, "{offered}");
        let mut request = offer(&offered);
        let header = HeaderValue::try_from(bearer(&token)).unwrap();
        request.headers_mut().insert(AUTHORIZATION, header);
        let response = first.layer(service_fn(show)).oneshot(request).await;
        assert_eq!(
            response.unwrap().body(),
            &format!("al: {seen}"),
            "{offered}"
        );
    }
}

/// What a layer hides that another source decided for is the same to a layer further in: one token, several, or one
/// that is no good.
#[tokio::test]
async fn a_layer_further_in_sees_as_many_tokens() {
    let spy = Spy::default();
    let (token, [required, _]) = logged_in(&spy, "al").await;
    let other = required.clone();
    let text = token.expose_secret();
    let protocol = TokenSource::websocket_protocol;
    let outer: SessionLayer<Profile> = required
        .token_sources([TokenSource::authorization(), protocol()])
        .first_source_decides();
    let inside = other.token_sources([protocol()]);
    for (offered, expected) in [
        (format!("bearer, {text}").into_bytes(), 200),
        (format!("bearer, {text}, bearer, x").into_bytes(), 400),
        (format!("bearer, bearer, {text}").into_bytes(), 400),
        (b"bearer, \xff".to_vec(), 401),
        (b"bearer".to_vec(), 401),
    ] {
        let mut request = Request::new(());
        let header = HeaderValue::try_from(bearer(&token)).unwrap();
        request.headers_mut().insert(AUTHORIZATION, header);
        let value = HeaderValue::from_bytes(&offered).unwrap();
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
        let service = outer.layer(inside.layer(service_fn(show)));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{offered:?}");
        assert!(
            !response.body().contains(text),
            "{} of {offered:?}",
            response.body()
        );
    }
}

/// A client may offer as many protocols and tokens as fit into a header: hiding the tokens compares no protocol with
/// every token.
#[tokio::test]
async fn very_many_offered_tokens_are_hidden_in_linear_time() {
    const TOKENS: usize = 150_000;
    let (token, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let first = [
        TokenSource::authorization(),
        TokenSource::websocket_protocol(),
    ];
    let layer = optional.token_sources(first).first_source_decides();
    // A protocol and a token differ in their last bytes only: a comparison has to read all that is before these.
    let others: Vec<_> = (0..TOKENS).map(|n| format!("{n:0>60}p")).collect();
    let tokens: String = (0..TOKENS)
        .map(|n| format!("bearer, {n:0>60}t, "))
        .collect();
    let mut request = offer(&format!("{tokens}{}", others.join(", ")));
    let header = HeaderValue::try_from(bearer(&token)).unwrap();
    request.headers_mut().insert(AUTHORIZATION, header);
    let started = Instant::now();
    let response = layer
        .layer(service_fn(show))
        .oneshot(request)
        .await
        .unwrap();
    let took = started.elapsed();
    assert_eq!(response.body(), &format!("al: {}", others.join(", ")));
    // Comparing each protocol with every token takes minutes.
    assert!(took < Duration::from_secs(30), "{took:?}");
}
