use std::convert::Infallible;

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Error, ErrorKind, Rejection, SessionLayer, User,
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

/// A hook that starts anew loses neither the reason for layers further out nor what keeps caches away.
#[tokio::test]
async fn a_hook_may_start_anew() {
    let (_, [layer, _]) = logged_in(&Spy::default(), "al").await;
    let to_login = |_: &Rejection, _: Response<String>| {
        let response = Response::builder().status(303).header(LOCATION, "/login");
        response.body(String::new()).unwrap()
    };
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new("in".into())));
    let service = layer.on_rejection(to_login).layer(inner);
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(response.status(), 303);
    assert_eq!(response.headers()[LOCATION], "/login");
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    let rejection = response.extensions().get::<Rejection>();
    assert!(matches!(rejection, Some(Rejection::MissingToken)));
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

/// A layer that is told so answers gRPC calls with a status that their clients understand, in the headers, and no body.
/// It takes a `POST` with the content type of gRPC for one, and nothing else.
#[tokio::test]
async fn grpc_calls_get_a_grpc_status() {
    let spy = Spy::default();
    let (token, [plain, _]) = logged_in(&spy, "al").await;
    let hook = |_: &Rejection, response: Response<String>| response.map(|_| "body".to_owned());
    let plain = plain.on_rejection(hook);
    let grpc = plain.clone().grpc();
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
        let call = |method: Method, kind: &str| {
            let mut call = request(authorization);
            *call.method_mut() = method;
            let kind = kind.parse().unwrap();
            call.headers_mut().insert(CONTENT_TYPE, kind);
            call
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC+json; x=y",
            "application/grpc;x=y",
            "application/grpc ; x=y",
        ] {
            let answer = grpc.layer(inner).oneshot(call(Method::POST, kind)).await;
            let response = answer.unwrap();
            assert_eq!(response.status(), 200, "{kind}");
            assert_eq!(response.headers()["grpc-status"], grpc_status);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
            assert!(response.headers().contains_key("grpc-message"));
            assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
            assert!(response.body().is_empty());
            assert!(response.extensions().get::<Rejection>().is_some());
            // A layer that was not told so refuses as ever.
            let answer = plain.layer(inner).oneshot(call(Method::POST, kind)).await;
            let response = answer.unwrap();
            assert_eq!(response.status(), http_status, "{kind}");
            assert!(!response.headers().contains_key("grpc-status"));
        }
        for (method, kind) in [
            (Method::GET, "application/grpc"),
            (Method::PUT, "application/grpc"),
            (Method::OPTIONS, "application/grpc+proto"),
            (Method::POST, "application/grpc-web"),
            (Method::POST, "application/grpc-web+proto"),
            (Method::POST, "application/grpc-web-text"),
            (Method::POST, "application/grpcx"),
            (Method::POST, "application/grpc +proto"),
            (Method::POST, "application/grpc, application/json"),
            (Method::POST, "application/json"),
            (Method::POST, "text/plain; x=application/grpc"),
        ] {
            let answer = grpc.layer(inner).oneshot(call(method.clone(), kind)).await;
            let response = answer.unwrap();
            assert_eq!(response.status(), http_status, "{method} {kind}");
            assert!(!response.headers().contains_key("grpc-status"));
        }
    }
}

/// Refusals of extractors and errors of handlers under such a layer are gRPC answers, too.
#[tokio::test]
async fn grpc_calls_of_handlers_get_a_grpc_status() {
    let (_, [_, optional]) = logged_in(&Spy::default(), "al").await;
    let limit = || Error::new(ErrorKind::SessionLimit, "100 % of the sessions are in use");
    let routes = Router::new()
        .route("/user", post(async |_: User<Profile>| ()))
        .route("/forgotten", post(async |_: User<u8>| ()))
        .route("/login", post(async move || Err::<(), _>(limit())));
    let call = |path: &str| {
        let call = Request::post(path).header(CONTENT_TYPE, "application/grpc");
        call.body(Body::empty()).unwrap()
    };
    // What a hook makes of bodies is not for gRPC clients.
    let grpc = optional.clone().on_rejection(ProblemJson).grpc();
    let told = routes.clone().layer(grpc);
    let not_told = routes.layer(optional);
    for (path, grpc_status, http_status) in [
        ("/user", "16", 401),
        ("/forgotten", "13", 500),
        ("/login", "8", 409),
    ] {
        let response = told.clone().oneshot(call(path)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], grpc_status);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        let body = axum::body::to_bytes(response.into_body(), 1000).await;
        assert!(body.unwrap().is_empty());
        let response = not_told.clone().oneshot(call(path)).await.unwrap();
        assert_eq!(response.status(), http_status);
        assert!(!response.headers().contains_key("grpc-status"));
    }
}

/// Of two layers around each other, the one that refuses decides whether that is a gRPC answer.
#[tokio::test]
async fn a_grpc_layer_leaves_the_responses_of_inner_layers_alone() {
    let (token, [required, optional]) = logged_in(&Spy::default(), "al").await;
    let call = |authorization: &[&str]| {
        let mut call = request(authorization);
        *call.method_mut() = Method::POST;
        let kind = HeaderValue::from_static("application/grpc");
        call.headers_mut().insert(CONTENT_TYPE, kind);
        call
    };
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let grpc_outside = optional.clone().grpc().layer(required.clone().layer(inner));
    let grpc_inside = optional.layer(required.clone().grpc().layer(inner));
    for (refused, live) in [(&[][..], bearer(&token)), (&["Bearer x"], bearer(&token))] {
        let response = grpc_outside.clone().oneshot(call(refused)).await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(!response.headers().contains_key("grpc-status"));
        let response = grpc_inside.clone().oneshot(call(refused)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "16");
        // What the service answers is its own.
        let response = grpc_inside.clone().oneshot(call(&[&*live])).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("grpc-status"));
    }
}

fn app<R>(layer: SessionLayer<Profile, R>) -> Router
where
    R: OnRejection<Body, Body = Body> + Clone + Send + Sync + 'static,
{
    let handler = async |user: User<Profile>| user.id().to_owned();
    Router::new().route("/", get(handler)).layer(layer)
}
