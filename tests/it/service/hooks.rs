use std::convert::Infallible;

use axum::{Router, body::Body, routing::get};
use http::{
    Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    ErrorKind, Rejection, SessionLayer, User,
    middleware::{OnRejection, ProblemJson},
};

use super::{Mood, Profile, Spy, bearer, logged_in, request};

/// The hook sees the whole response and may change all of it; what it leaves alone is right.
#[tokio::test]
async fn a_hook_makes_bodies() {
    let spy = Spy::default();
    let (token, [layer, _]) = logged_in(&spy, "al").await;
    let layer = layer.on_rejection(|rejection: &Rejection, response: Response<String>| {
        assert_eq!(response.status(), rejection.status());
        response.map(|empty| format!("{empty}{rejection}"))
    });
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("in".into())));
    let ask = async |request| layer.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(ask(request([bearer(&token)])).await.body(), "in");
    let refused = ask(request(["Bearer x"])).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(
        refused.headers()[WWW_AUTHENTICATE],
        Rejection::InvalidToken.challenge().unwrap()
    );
    assert_eq!(*refused.body(), Rejection::InvalidToken.to_string());
    spy.set(Mood::Fails(ErrorKind::Unavailable));
    let unavailable = ask(request([bearer(&token)])).await;
    assert_eq!(unavailable.status(), 503);
    assert!(unavailable.headers().contains_key(RETRY_AFTER));
    assert!(!unavailable.body().is_empty());
}

/// A realm of one's own is in the challenges of the layer and in those of extractors under it.
#[tokio::test]
async fn a_realm_is_in_every_challenge() {
    let (_, layers) = logged_in(&Spy::default(), "al").await;
    for layer in layers {
        let app = app(layer.realm("the shop").unwrap());
        for (header, expected) in [
            (None, "Bearer realm=\"the shop\""),
            (
                Some("Bearer x"),
                "Bearer realm=\"the shop\", error=\"invalid_token\"",
            ),
        ] {
            let request = request(header).map(|()| Body::empty());
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 401);
            let challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
            assert!(challenge.starts_with(expected), "{challenge}");
        }
    }
    for bad in ["\"", "\\", "\n", "ä"] {
        let (_, [layer, _]) = logged_in(&Spy::default(), "al").await;
        let error = layer.realm(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

/// The ready-made hook: RFC 9457, from the layer and from extractors alike.
#[tokio::test]
async fn problems_are_json() {
    let spy = Spy::default();
    let (token, layers) = logged_in(&spy, "al").await;
    for layer in layers {
        let app = app(layer.on_rejection(ProblemJson));
        let live = bearer(&token);
        for (header, mood, status, title) in [
            ("Basic x", Mood::Works, 401, "Unauthorized"),
            ("Bearer x", Mood::Works, 401, "Unauthorized"),
            (
                &*live,
                Mood::Fails(ErrorKind::Timeout),
                503,
                "Service Unavailable",
            ),
        ] {
            spy.set(mood);
            let request = request([header]).map(|()| Body::empty());
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            let body = axum::body::to_bytes(response.into_body(), 1000)
                .await
                .unwrap();
            let mut problem: Value = serde_json::from_slice(&body).unwrap();
            assert!(
                problem["detail"]
                    .take()
                    .as_str()
                    .is_some_and(|it| !it.is_empty())
            );
            let expected =
                json!({"type": "about:blank", "title": title, "status": status, "detail": null});
            assert_eq!(problem, expected);
        }
        spy.set(Mood::Works);
    }
}

/// Of two layers around each other, the one that refuses decides what that looks like, even if that is nothing special.
#[tokio::test]
async fn a_hook_leaves_the_responses_of_inner_layers_alone() {
    let (_, [required, optional]) = logged_in(&Spy::default(), "al").await;
    let named = |name: &'static str| {
        move |_: &Rejection, response: Response<String>| response.map(|_| name.to_owned())
    };
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("in".into())));
    let outer = optional
        .on_rejection(named("outer"))
        .realm("outer")
        .unwrap();

    let service = outer.layer(required.clone().on_rejection(named("inner")).layer(inner));
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.body(), "inner");

    let service = outer.layer(required.layer(inner));
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        response.headers()[WWW_AUTHENTICATE],
        r#"Bearer realm="api""#
    );
    assert_eq!(response.body(), "");
}

/// A service that notes the reason and answers something else has its way.
#[tokio::test]
async fn a_hook_leaves_other_answers_alone() {
    let (_, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let layer = optional
        .on_rejection(|_: &Rejection, response: Response<String>| response.map(|_| "no".into()))
        .realm("x")
        .unwrap();
    for status in [200, 303] {
        let inner = service_fn(async |_: Request<()>| {
            let response = Response::builder().status(status);
            let response = response.extension(Rejection::MissingToken);
            Ok::<_, Infallible>(response.body("hello".to_owned()).unwrap())
        });
        let response = layer.layer(inner).oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.body(), "hello");
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
    }
}

/// A gRPC client gets a status that it understands, in the headers, and no body; others with similar types do not.
#[tokio::test]
async fn grpc_calls_get_a_grpc_status() {
    let spy = Spy::default();
    let (token, [layer, _]) = logged_in(&spy, "al").await;
    let hook = |_: &Rejection, response: Response<String>| response.map(|_| "body".to_owned());
    let layer = layer.on_rejection(hook);
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("in".into())));
    let live = bearer(&token);
    let two = [&*live, &*live];
    for (authorization, mood, grpc_status, http_status) in [
        (&[][..], Mood::Works, "16", 401),
        (&["Bearer x"][..], Mood::Works, "16", 401),
        (&two[..], Mood::Works, "3", 400),
        (&two[..1], Mood::Fails(ErrorKind::Timeout), "14", 503),
        (&two[..1], Mood::Fails(ErrorKind::Serialize), "13", 500),
    ] {
        spy.set(mood);
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x=y",
        ] {
            let mut call = request(authorization);
            call.headers_mut()
                .insert(CONTENT_TYPE, kind.parse().unwrap());
            let response = layer.layer(inner).oneshot(call).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], grpc_status);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
            assert!(response.headers().contains_key("grpc-message"));
            assert!(response.body().is_empty());
            assert!(response.extensions().get::<Rejection>().is_some());
        }
        for kind in [
            "application/grpc-web",
            "application/grpcx",
            "application/json",
        ] {
            let mut call = request(authorization);
            call.headers_mut()
                .insert(CONTENT_TYPE, kind.parse().unwrap());
            let response = layer.layer(inner).oneshot(call).await.unwrap();
            assert_eq!(response.status(), http_status);
            assert!(!response.headers().contains_key("grpc-status"));
        }
    }
}

fn app<R>(layer: SessionLayer<Profile, R>) -> Router
where
    R: OnRejection<Body> + Clone + Send + Sync + 'static,
{
    let handler = async |user: User<Profile>| user.id().to_owned();
    Router::new().route("/", get(handler)).layer(layer)
}
