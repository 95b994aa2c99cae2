use std::error::Error as _;

use axum::{
    Router,
    http::{Request, StatusCode},
    response::IntoResponse,
    routing::get,
};
use reqwest::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_bearer_session::{
    Error, ErrorKind, MemoryStore, OnFull, RedisStore, Rejection, Session, SessionLayer,
    TokenManager, User,
};

use super::{Profile, Server, app, builder};
use crate::harness::{Flavor, RedisServer};

/// An extractor that finds no layer of its type says so in the response's extensions: with its type and that of the
/// layer that is there, because nobody should have to guess.
#[tokio::test]
async fn an_extractor_without_its_layer_names_the_types() {
    let manager = builder(MemoryStore::new()).build().unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    let routes = || {
        Router::new()
            .route("/session", get(async |_: Session<Other>| ()))
            .route("/user", get(async |_: User<Other>| ()))
            .route("/manager", get(async |_: TokenManager<Other>| ()))
            .route("/maybe/session", get(async |_: Option<Session<Other>>| ()))
            .route("/maybe/user", get(async |_: Option<User<Other>>| ()))
            .route("/default", get(async |_: Session| ()))
    };
    let layer = SessionLayer::<Profile>::new(manager);
    let mut outermost_answered = false;
    let there = "it has a `SessionLayer<support::app::Profile>`";
    for (app, present) in [
        (routes(), None),
        (routes().layer(layer.clone()), Some(there)),
        (routes().layer(layer.clone().optional()), Some(there)),
        // The innermost layer is the one to change.
        (
            routes()
                .layer(layer.clone())
                .layer(SessionLayer::new(TokenManager::new(MemoryStore::new())).optional()),
            Some(there),
        ),
    ] {
        for (path, wanted) in [
            ("/session", "`Session<services::http::errors::Other>`"),
            ("/user", "`User<services::http::errors::Other>`"),
            ("/manager", "`TokenManager<services::http::errors::Other>`"),
            ("/maybe/session", "`Session<services::http::errors::Other>`"),
            ("/maybe/user", "`User<services::http::errors::Other>`"),
            ("/default", "`Session<serde_json::value::Value>`"),
        ] {
            let bearer = format!("Bearer {}", token.expose_secret());
            let request = Request::get(path).header("authorization", bearer);
            let request = request.body(axum::body::Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            if response.status() == 401 {
                // The outermost layer of the last one has this type, and does not know the token.
                assert_eq!(path, "/default");
                assert!(!outermost_answered);
                outermost_answered = true;
                continue;
            }
            assert_eq!(response.status(), 500, "{path}");
            assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
            let rejection = response
                .extensions()
                .get::<Rejection>()
                .expect("a rejection");
            let text = rejection.source().expect("the types").to_string();
            assert!(text.contains(wanted), "{text}");
            assert_eq!(text.contains("it has a"), present.is_some(), "{text}");
            assert!(present.is_none_or(|it| text.contains(it)), "{text}");
        }
    }
    assert!(outermost_answered);
}

/// The session limit is a 409, and an input that cannot be a 400, each with a text.
#[tokio::test]
async fn refused_logins_have_their_statuses() {
    let manager = builder(MemoryStore::new()).session_limit(1, OnFull::Reject);
    let server = Server::axum(app(manager.build().unwrap())).await;
    let too_long = "x".repeat(256);
    let too_much = "x".repeat(2000);
    for (login, status) in [
        (json!({"user": "al"}), 200),
        (json!({"user": "al"}), 409),
        (json!({"user": "bo"}), 200),
        (json!({"user": ""}), 400),
        (json!({"user": too_long}), 400),
        (json!({"user": "cy", "seconds": 0}), 400),
        (json!({"user": "cy", "seconds": u64::MAX}), 400),
        (json!({"user": "cy", "device": too_much}), 400),
    ] {
        let response = server.client().post("/login", &login).await;
        assert_eq!(response.status(), status, "{login}");
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        assert!(!response.text().await.unwrap().is_empty());
    }
}

/// A store that is away is a 503 with Retry-After: at the layer, and in handlers that call the manager.
#[tokio::test]
async fn an_outage_is_a_503() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let server = Server::axum(app(builder(store).build().unwrap())).await;
    let client = server.login("al", "phone").await;
    assert_eq!(client.status("/me").await, 200);
    redis.kill();
    let answers = [
        client.get("/me").await,
        client.get("/").await,
        client.post("/logout", &Value::Null).await,
        server.client().post("/login", &json!({"user": "al"})).await,
    ];
    for answer in answers {
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key(RETRY_AFTER));
        assert!(!answer.headers().contains_key(WWW_AUTHENTICATE));
    }
    // Who shows no token needs no store.
    assert_eq!(server.client().status("/").await, 200);
    assert_eq!(server.client().status("/me").await, 401);
}

/// Every kind of error is a response; the error itself is in its extensions, and no cause in its body.
#[tokio::test]
async fn errors_are_responses() {
    for (kind, status) in [
        (ErrorKind::Config, 500),
        (ErrorKind::InvalidInput, 400),
        (ErrorKind::SessionLimit, 409),
        (ErrorKind::Unavailable, 503),
        (ErrorKind::Timeout, 503),
        (ErrorKind::Store, 503),
        (ErrorKind::LoadUser, 503),
        (ErrorKind::NoLoader, 500),
        (ErrorKind::Serialize, 500),
        (ErrorKind::Random, 500),
    ] {
        let error = Error::with_source(kind, "what happened", "a cause with details");
        let response = error.into_response();
        assert_eq!(response.status().as_u16(), status, "{kind:?}");
        let found = match response.extensions().get::<Rejection>() {
            Some(
                Rejection::InvalidInput(error)
                | Rejection::SessionLimit(error)
                | Rejection::Fault(error)
                | Rejection::Internal(error),
            ) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(found.kind(), kind);
        assert_eq!(
            response.headers().contains_key(RETRY_AFTER),
            status == 503,
            "{kind:?}"
        );
        let body = axum::body::to_bytes(response.into_body(), 1000).await;
        let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
        assert!(!body.is_empty() && !body.contains("details"), "{body}");
    }
}

/// A handler may match on the error instead: `Result<_, Error>` is one choice of many.
#[tokio::test]
async fn a_handler_may_answer_an_error_in_its_own_way() {
    let handler = async |session: Result<Session<Profile>, Rejection>| match session {
        Ok(session) => (StatusCode::OK, session.user().id().to_owned()),
        Err(Rejection::MissingToken) => (StatusCode::SEE_OTHER, "log in".to_owned()),
        Err(other) => (other.status(), "no".to_owned()),
    };
    let manager = builder(MemoryStore::new()).build().unwrap();
    let router = Router::new()
        .route("/", get(handler))
        .layer(SessionLayer::new(manager).optional());
    for (header, status) in [(None, 303), (Some("Bearer x"), 401)] {
        let mut request = Request::get("/");
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
    }
}

/// A user type that no layer here has.
#[derive(serde::Serialize, serde::Deserialize)]
struct Other;
