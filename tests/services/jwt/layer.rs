//! The layer without a store.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Router, routing::get};
use http::{Request, Response, StatusCode};
use reqwest::Client;
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Anonymous, MemoryStore, Rejection, Session, SessionLayer, TokenManager, TokenOptions, User,
    jwt::{JwtVerifier, VerifiedClaims},
    middleware::{JwtLayer, ProblemJson, TokenSource, Unverified},
};

use super::{SECRET, built, config, header, hs256, now, respelled, signing_keys};
use serde_json::json;

/// A token with an end, as the service with the store mints it.
async fn minted(manager: &TokenManager) -> String {
    let options = TokenOptions::new().max_lifetime(Duration::from_secs(60));
    let token = manager.set_token_with("al", options).await.unwrap().token;
    token.expose_secret().to_owned()
}

/// The same handlers as under a `SessionLayer`, over HTTP; a logout is not seen.
#[tokio::test]
async fn handlers_get_the_user() {
    let config = config(&signing_keys()[1]).audience("shop");
    let manager = built(MemoryStore::new(), config.clone()).unwrap();
    let token = minted(&manager).await;
    let layer = JwtLayer::new(config.verifier().unwrap())
        .token_sources([
            TokenSource::authorization(),
            TokenSource::cookie("s").unwrap(),
        ])
        .on_rejection(ProblemJson)
        .realm("shop")
        .unwrap();
    let me = async |user: User| {
        assert!(user.detail().is_none());
        assert!(user.token_id().is_some() && user.token_expires_at().is_some());
        assert!(user.token_remaining() <= Some(Duration::from_secs(62)));
        user.id().to_owned()
    };
    let anybody =
        async |user: Option<User>| user.map(|user| user.id().to_owned()).unwrap_or_default();
    let app = Router::new()
        .route("/me", get(me))
        .route("/session", get(async |_: Session| ()))
        .layer(layer.clone())
        .merge(
            Router::new()
                .route("/anybody", get(anybody))
                .route("/strict", get(me))
                .route("/typo", get(async |_: Option<User<u8>>| ()))
                .layer(layer.optional()),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });

    let client = Client::new();
    let ask = async |path: &str, token: Option<&str>| {
        let mut request = client.get(format!("{base}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if status == 401 {
            let challenge = headers["www-authenticate"].to_str().unwrap();
            assert!(
                challenge.starts_with("Bearer realm=\"shop\""),
                "{challenge}"
            );
            assert_eq!(headers["content-type"], "application/problem+json");
        }
        (status, response.text().await.unwrap())
    };
    let fine = (200, "al".to_owned());
    for round in 0..2 {
        assert_eq!(ask("/me", Some(&token)).await, fine);
        assert_eq!(ask("/strict", Some(&token)).await, fine);
        assert_eq!(ask("/anybody", Some(&token)).await, fine);
        // Not seen here.
        assert_eq!(manager.delete_user_tokens("al").await.unwrap(), 1 - round);
    }
    let endless = json!({"sub": "al", "aud": "shop"});
    let endless = hs256(&header(), &endless, SECRET);
    for bad in [None, Some("x"), Some(&endless)] {
        for path in ["/me", "/strict", "/session"] {
            assert_eq!(ask(path, bad).await.0, 401, "{path}");
        }
        assert_eq!(ask("/anybody", bad).await, (200, String::new()));
    }
    // A layer for another user type is none, whoever asks.
    for token in [None, Some(&*token)] {
        assert_eq!(ask("/typo", token).await.0, 500);
    }
    assert_eq!(ask("/session", Some(&token)).await.0, 500);
}

/// A deny list by `jti`, which a second spelling of the signature does not get past.
#[tokio::test]
async fn a_deny_list_by_jti_refuses_every_spelling_of_a_token() {
    let config = config(&signing_keys()[1]).audience("shop");
    let manager = built(MemoryStore::new(), config.clone()).unwrap();
    let (denied, allowed) = (minted(&manager).await, minted(&manager).await);
    let verifier = config.verifier().unwrap();
    let jti = verifier.verify(&denied).unwrap().jti().unwrap().to_owned();
    let list = Arc::new(HashSet::from([jti]));
    let app = Router::new()
        .route(
            "/",
            get(async move |claims: VerifiedClaims| match claims.jti() {
                Some(jti) if !list.contains(jti) => StatusCode::OK,
                _ => StatusCode::UNAUTHORIZED,
            }),
        )
        .layer(JwtLayer::new(verifier));
    for (token, expected) in [(&denied, 401), (&allowed, 200)] {
        for token in [token, &respelled(token)] {
            let request = Request::get("/").header("authorization", format!("Bearer {token}"));
            let request = request.body(axum::body::Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), expected);
        }
    }
}

/// The claims that RFC 7519 §4.1 registers are typed, the others are JSON, and `Debug` shows neither them nor the
/// token.
#[tokio::test]
async fn handlers_get_the_claims() {
    let key = signing_keys()[0].verifying_key().clone();
    let verifier = JwtVerifier::builder([key]).issuer("login").audience("shop");
    let layer = JwtLayer::new(verifier.build().unwrap());
    let (start, id) = (now(), "x1");
    let all = json!({
        "iss": "login", "sub": "al", "aud": ["shop", "bank"], "exp": start + 60, "nbf": start - 2,
        "iat": start - 1, "jti": id, "scope": "read", "tenant": {"id": 7},
    });
    let token = hs256(&header(), &all, SECRET);
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let shown = token.clone();
    let handler = async move |claims: VerifiedClaims, user: User| {
        assert_eq!(claims.user_id(), user.id());
        assert_eq!(Some(claims.token_id()), user.token_id());
        assert_eq!(claims.issuer(), Some("login"));
        assert_eq!(claims.audience(), ["shop", "bank"]);
        assert_eq!(claims.expires_at(), at(start + 60));
        assert_eq!(claims.not_before(), Some(at(start - 2)));
        assert_eq!(claims.issued_at(), Some(at(start - 1)));
        assert_eq!(claims.jti(), Some(id));
        let other = json!({"scope": "read", "tenant": {"id": 7}});
        assert_eq!(serde_json::to_value(claims.other()).unwrap(), other);
        let debug = format!("{claims:?}");
        assert!(debug.contains("x1") && debug.contains("al"), "{debug}");
        assert!(
            !debug.contains("tenant") && !debug.contains(&shown[..20]),
            "{debug}"
        );
        "fine"
    };
    let id_if_any = async |claims: Option<VerifiedClaims>| {
        claims.map_or("nobody".to_owned(), |claims| claims.user_id().to_owned())
    };
    let app = Router::new().route("/", get(handler)).layer(layer.clone());
    let open = Router::new()
        .route("/optional", get(id_if_any))
        .route("/required", get(async |_: VerifiedClaims| "fine"))
        .layer(layer.clone().optional());
    let manager = built(MemoryStore::new(), config(&signing_keys()[0])).unwrap();
    let bare = Router::new()
        .route("/bare", get(id_if_any))
        .layer(SessionLayer::new(manager).optional())
        .layer(layer.optional());
    let app = app.merge(open).merge(bare);
    let bearer = format!("Bearer {token}");
    for (path, with_token, expected, text) in [
        ("/", true, 200, "fine"),
        ("/optional", true, 200, "al"),
        ("/optional", false, 200, "nobody"),
        ("/required", true, 200, "fine"),
        ("/required", false, 401, ""),
        // A layer further in has the last word, and this one knows no claims.
        ("/bare", true, 500, ""),
    ] {
        let mut request = Request::get(path);
        if with_token {
            request = request.header("authorization", &bearer);
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected, "{path}");
        let body = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .unwrap();
        assert!(text.is_empty() || body == text, "{path}: {body:?}");
    }
}

/// Of two layers, the inner one has the last word, whichever it is.
#[tokio::test]
async fn the_inner_layer_decides() {
    let config = config(&signing_keys()[0]);
    let manager = built(MemoryStore::new(), config.clone()).unwrap();
    let live = minted(&manager).await;
    let claims = json!({"sub": "stranger", "exp": now() + 60});
    let unknown = hs256(&header(), &claims, SECRET);
    let online = SessionLayer::new(manager).optional();
    let offline = JwtLayer::new(config.verifier().unwrap()).optional();
    // User, session, and the reasons why there is none.
    let who = service_fn(async |request: Request<()>| {
        let extensions = request.extensions();
        let user: Option<&User> = extensions.get();
        Ok::<_, Infallible>(Response::new((
            user.map(|user| user.id().to_owned()),
            extensions.get::<Session>().is_some(),
            extensions.get::<Anonymous>().is_some(),
            extensions.get::<Unverified>().is_some(),
        )))
    });
    let ask = |token: &str| {
        let request = Request::builder().header("authorization", format!("Bearer {token}"));
        request.body(()).unwrap()
    };
    let some = |name: &str| Some(name.to_owned());
    for (token, offline_inside, online_inside) in [
        (
            &live,
            (some("al"), false, false, false),
            (some("al"), true, false, false),
        ),
        (
            &unknown,
            (some("stranger"), false, false, false),
            (None, false, true, false),
        ),
        (
            &"x".to_owned(),
            (None, false, false, true),
            (None, false, true, false),
        ),
    ] {
        let service = online.layer(offline.layer(who));
        let seen = service.oneshot(ask(token)).await.unwrap().into_body();
        assert_eq!(seen, offline_inside, "{token}");
        let service = offline.layer(online.layer(who));
        let seen = service.oneshot(ask(token)).await.unwrap().into_body();
        assert_eq!(seen, online_inside, "{token}");
    }
}

/// gRPC calls and twice the token are answered as by the other layer; the user type is the handlers' own.
#[tokio::test]
async fn a_jwt_layer_refuses_like_a_session_layer() {
    struct Profile;
    let config = config(&signing_keys()[0]);
    let manager = built(MemoryStore::new(), config.clone()).unwrap();
    let token = minted(&manager).await;
    let layer = JwtLayer::new(config.verifier().unwrap()).user_type::<Profile>();
    let inner = service_fn(async |request: Request<()>| {
        let user: &User<Profile> = request.extensions().get().expect("a user");
        Ok::<_, Infallible>(Response::new(user.id().to_owned()))
    });
    let bearer = format!("Bearer {token}");
    let request = || Request::builder().header("authorization", &bearer);
    let ask = async |request: http::request::Builder| {
        layer
            .layer(inner)
            .oneshot(request.body(()).unwrap())
            .await
            .unwrap()
    };
    assert_eq!(ask(request()).await.body(), "al");
    let twice = ask(request().header("authorization", &bearer)).await;
    assert_eq!(twice.status(), StatusCode::BAD_REQUEST);
    let missing = ask(Request::builder()).await;
    assert_eq!(missing.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        missing.headers().get("www-authenticate"),
        Rejection::MissingToken.challenge().as_ref()
    );
    let call = || Request::post("/").header("content-type", "application/grpc");
    assert_eq!(ask(call()).await.status(), StatusCode::UNAUTHORIZED);
    let grpc = layer.clone().grpc().layer(inner);
    let grpc = grpc.oneshot(call().body(()).unwrap()).await.unwrap();
    assert_eq!(grpc.status(), StatusCode::OK);
    assert_eq!(grpc.headers()["grpc-status"], "16");
    assert!(format!("{layer:?}").contains("JwtVerifier"));
    let both = || {
        let both = request().header("cookie", format!("s={token}"));
        both.body(()).unwrap()
    };
    let cookie = TokenSource::cookie("s").unwrap();
    let layer = layer.token_sources([TokenSource::authorization(), cookie]);
    let refused = layer.layer(inner).oneshot(both()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(refused.headers()["cache-control"], "no-store");
    let layer = layer.first_source_decides();
    let response = layer.layer(inner).oneshot(both()).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "private");
    assert_eq!(response.headers()["vary"], "authorization, cookie");
    assert_eq!(response.body(), "al");
}
