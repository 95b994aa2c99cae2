//! Guards under a layer without a store.

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::{Request, Response, header::WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_bearer_session::{
    MemoryStore, Rejection, ReplaceOptions, Replacement, Session, SessionLayer, TokenOptions, User,
    middleware::{
        JwtLayer, ProblemJson, RequirePredicate, RequireRecentAuthentication, RequireScope,
        RequireSession, TokenSource,
    },
};

use super::{SECRET, built, config, header, hs256, now, signing_keys};

const FIVE_MINUTES: Duration = Duration::from_secs(300);

async fn ask(app: &Router, path: &str, token: Option<&str>) -> Response<Body> {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

/// Guarded routes, without a layer around them.
fn guarded<D: Send + Sync + 'static>() -> Router {
    let scope = |scope: &str| RequireScope::new(scope).unwrap().user_type::<D>();
    let user = async |user: User<D>| user.id().to_owned();
    let recent = RequireRecentAuthentication::new(FIVE_MINUTES);
    let route = |path: &str| Router::new().route(path, get(user));
    route("/scope")
        .route_layer(scope("orders:write"))
        .merge(
            route("/both")
                .route_layer(scope("orders:write"))
                .route_layer(scope("profile")),
        )
        .merge(route("/session").route_layer(RequireSession::new().user_type::<D>()))
        .merge(route("/recent").route_layer(recent.user_type::<D>()))
        .merge(route("/predicate").route_layer(RequirePredicate::new(|_: &Session<D>| true)))
}

fn signed(claims: &Value) -> String {
    let mut all = json!({ "sub": "al", "exp": now() + 60 });
    all.as_object_mut()
        .unwrap()
        .extend(claims.as_object().unwrap().clone());
    hs256(&header(), &all, SECRET)
}

/// The challenge and body of a refusal, with everything that a client sees.
async fn seen(response: Response<Body>) -> (u16, Option<String>, String) {
    let status = response.status().as_u16();
    let challenge = response.headers().get(WWW_AUTHENTICATE);
    let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
    let body = axum::body::to_bytes(response.into_body(), 1000).await;
    let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
    (status, challenge, body)
}

/// By the scopes of the session when the token was issued, with the same answers as under a layer with a store.
#[tokio::test]
async fn a_scope_is_required_of_the_claims() {
    let config = config(&signing_keys()[1]).audience("shop");
    let manager = built(MemoryStore::new(), config.clone()).unwrap();
    let offline = JwtLayer::new(config.verifier().unwrap()).realm("shop");
    let offline = offline.unwrap().on_rejection(ProblemJson);
    let online = SessionLayer::new(manager.clone()).realm("shop").unwrap();
    let online = online.on_rejection(ProblemJson);
    let with_store = guarded::<Value>().layer(online);
    let required = guarded::<Value>().layer(offline.clone());
    let optional = guarded::<Value>().layer(offline.optional());
    let options = |scopes: &[&str]| TokenOptions::new().scopes(scopes.iter().copied());
    for (scopes, expected) in [
        (&["orders:write", "profile"][..], [200, 200]),
        (&["profile", "orders:write", "x"], [200, 200]),
        (&["orders:write"], [200, 403]),
        (
            &["profile", "orders", "orders:writ", "ORDERS:WRITE"],
            [403, 403],
        ),
        (&[], [403, 403]),
    ] {
        let issued = manager.set_token_with("al", options(scopes)).await.unwrap();
        let token = Some(issued.token.expose_secret());
        for (path, expected) in ["/scope", "/both"].into_iter().zip(expected) {
            let like = seen(ask(&with_store, path, token).await).await;
            assert_eq!(like.0, expected, "{scopes:?} {path}");
            for app in [&required, &optional] {
                let answer = ask(app, path, token).await;
                let rejection = answer.extensions().get::<Rejection>();
                let is_named = matches!(rejection, Some(Rejection::InsufficientScope(_)));
                assert_eq!(is_named, expected == 403);
                assert_eq!(seen(answer).await, like, "{scopes:?} {path}");
            }
        }
    }
    let refused = signed(&json!({}));
    for (token, error) in [(None, false), (Some(&*refused), true)] {
        for path in ["/scope", "/session", "/recent"] {
            let (status, challenge, _) = seen(ask(&optional, path, token).await).await;
            assert_eq!(status, 401, "{path}");
            let challenge = challenge.unwrap();
            assert!(challenge.starts_with("Bearer realm=\"shop\""));
            assert_eq!(challenge.contains("invalid_token"), error, "{path}");
        }
    }
}

/// A replacement with other scopes shows in the new token, and not in the old one.
#[tokio::test]
async fn a_replacement_changes_what_the_new_token_may_do() {
    let config = config(&signing_keys()[0]);
    let manager = built(MemoryStore::new(), config.clone()).unwrap();
    let app = guarded::<Value>().layer(JwtLayer::new(config.verifier().unwrap()));
    let old = manager.set_token("al", None).await.unwrap();
    let options = ReplaceOptions::new().scopes(["orders:write"]);
    let replacement = manager.replace_token(old.expose_secret(), options).await;
    let Ok(Replacement::Replaced { issued, .. }) = replacement else {
        panic!("the token is current");
    };
    for (token, expected) in [(&old, 403), (&issued.token, 200)] {
        let answer = ask(&app, "/scope", Some(token.expose_secret())).await;
        assert_eq!(answer.status(), expected);
    }
}

/// By `auth_time`; a token without it is refused.
#[tokio::test]
async fn a_recent_login_is_required_of_the_claims() {
    let verifier = config(&signing_keys()[0]).verifier().unwrap();
    let app = guarded::<Value>().layer(JwtLayer::new(verifier));
    for (claims, expected) in [
        (json!({ "auth_time": now() }), 200),
        (json!({ "auth_time": now() - 290 }), 200),
        // The clock of the issuer may be ahead.
        (json!({ "auth_time": now() + 3 }), 200),
        (json!({ "auth_time": now() - 301 }), 401),
        (json!({ "auth_time": 0 }), 401),
        (json!({ "auth_time": now().to_string() }), 401),
        (json!({ "iat": now() }), 401),
    ] {
        let answer = ask(&app, "/recent", Some(&signed(&claims))).await;
        let (status, challenge, _) = seen(answer).await;
        assert_eq!(status, expected, "{claims}");
        if expected == 401 {
            let challenge = challenge.unwrap();
            assert!(
                challenge.contains("insufficient_user_authentication")
                    && challenge.contains("max_age=\"300\""),
                "{challenge}"
            );
        }
    }
}

/// What needs a session is a mistake of the program under a layer that has none, and so is another user type.
#[tokio::test]
async fn what_the_claims_cannot_tell_is_a_mistake_of_the_program() {
    struct Profile;
    let verifier = config(&signing_keys()[0]).verifier().unwrap();
    let layer = JwtLayer::new(verifier);
    let token = signed(&json!({ "scope": "orders:write profile", "auth_time": now() }));
    let values = guarded::<Value>().layer(layer.clone());
    let profiles = guarded::<Profile>().layer(layer.clone().user_type::<Profile>());
    let mistaken = guarded::<Value>().layer(layer.clone().user_type::<Profile>());
    // The inner layer is for other handlers: its claims are not of the user that the guards ask for.
    let other = signed(&json!({ "sub": "bo" }));
    let inner = layer.clone().user_type::<Profile>();
    let inner = inner
        .token_sources([tower_bearer_session::middleware::TokenSource::header("x-other").unwrap()]);
    let nested = guarded::<Value>().layer(inner).layer(layer);
    for path in ["/scope", "/both", "/session", "/recent"] {
        for (app, expected) in [(&values, 200), (&profiles, 200), (&mistaken, 500)] {
            assert_eq!(
                ask(app, path, Some(&token)).await.status(),
                expected,
                "{path}"
            );
        }
        let request = Request::get(path)
            .header("authorization", format!("Bearer {token}"))
            .header("x-other", &other);
        let request = request.body(Body::empty()).unwrap();
        let answer = nested.clone().oneshot(request).await.unwrap();
        // The claims are another's, but the guards know those of their own layer.
        assert_eq!(answer.status(), 200, "{path}");
    }
    for app in [&values, &profiles, &mistaken] {
        let answer = ask(app, "/predicate", Some(&token)).await;
        let rejection = answer.extensions().get::<Rejection>();
        assert!(matches!(rejection, Some(Rejection::MissingLayer(_))));
        assert_eq!(answer.status(), 500);
    }
}

/// A guard judges by the layer of its own user type: neither by the claims of another layer further in, which may name
/// the same session, nor by those of the token that a store knows better.
#[tokio::test]
async fn claims_of_another_layer_open_nothing() {
    struct Profile;
    let config = config(&signing_keys()[0]);
    let manager = built(MemoryStore::new(), config.clone()).unwrap();
    let verifier = config.verifier().unwrap();
    let scopes = TokenOptions::new().scopes(["orders:write", "profile"]);
    let issued = manager.set_token_with("al", scopes).await.unwrap();
    let token = issued.token.expose_secret();
    let options = ReplaceOptions::new()
        .scopes(["none"])
        .grace(Duration::from_secs(60));
    let replacing = manager.replace_token(token, options);
    assert!(matches!(
        replacing.await.unwrap(),
        Replacement::Replaced { .. }
    ));
    // The replaced token is still accepted, but the session has lost its scopes.
    let profiles = JwtLayer::new(verifier).user_type::<Profile>();
    let online = guarded::<Value>()
        .layer(profiles.clone())
        .layer(SessionLayer::new(manager));
    for (path, expected) in [
        ("/session", 200),
        ("/scope", 403),
        ("/both", 403),
        ("/recent", 401),
    ] {
        let answer = ask(&online, path, Some(token)).await;
        assert_eq!(answer.status(), expected, "{path}");
    }

    // Another issuer names the session of somebody else.
    let outer = JwtLayer::new(config.verifier().unwrap());
    let other = TokenSource::header("x-other").unwrap();
    let nested = guarded::<Value>()
        .layer(profiles.token_sources([other]))
        .layer(outer);
    let (sid, now) = (issued.token.id().to_string(), now());
    let poor = signed(&json!({ "sid": sid, "scope": "x" }));
    let rich =
        json!({ "sub": "bo", "sid": sid, "scope": "orders:write profile", "auth_time": now });
    for (path, expected) in [
        ("/session", 200),
        ("/scope", 403),
        ("/both", 403),
        ("/recent", 401),
    ] {
        let request = Request::get(path)
            .header("authorization", format!("Bearer {poor}"))
            .header("x-other", signed(&rich));
        let request = request.body(Body::empty()).unwrap();
        let answer = nested.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), expected, "{path}");
    }
}

/// A time in the future is another unit or a wrong clock, and no proof.
#[tokio::test]
async fn nobody_has_authenticated_in_the_future() {
    let verifier = config(&signing_keys()[0]).verifier().unwrap();
    let app = guarded::<Value>().layer(JwtLayer::new(verifier));
    for (auth_time, expected) in [
        (now(), 200),
        (now() + 2, 200),
        (now() + 3600, 401),
        (now() * 1000, 401),
    ] {
        let token = signed(&json!({ "auth_time": auth_time }));
        let answer = ask(&app, "/recent", Some(&token)).await;
        assert_eq!(answer.status(), expected, "{auth_time}");
    }
}

/// A predicate over the claims, for services without a store.
#[tokio::test]
async fn a_predicate_asks_for_claims() {
    let verifier = config(&signing_keys()[0]).verifier().unwrap();
    #[derive(serde::Deserialize)]
    struct Own {
        tenant: String,
    }
    let of_acme = RequirePredicate::for_claims(|claims| {
        claims.other_as().is_ok_and(|own: Own| own.tenant == "acme")
    });
    let route = Router::new()
        .route("/", get(async || "hello"))
        .route_layer(of_acme);
    let app = route.clone().layer(JwtLayer::new(verifier.clone()));
    let optional = route.clone().layer(JwtLayer::new(verifier).optional());
    for (tenant, expected) in [
        (json!("acme"), 200),
        (json!("other"), 403),
        (json!(1), 403),
        (Value::Null, 403),
    ] {
        let token = signed(&json!({ "tenant": tenant }));
        assert_eq!(ask(&app, "/", Some(&token)).await.status(), expected);
        assert_eq!(ask(&optional, "/", Some(&token)).await.status(), expected);
    }
    assert_eq!(ask(&app, "/", None).await.status(), 401);
    assert_eq!(ask(&optional, "/", None).await.status(), 401);
    assert_eq!(ask(&route, "/", None).await.status(), 500);
    let manager = built(MemoryStore::new(), config(&signing_keys()[0])).unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    let online = route.layer(SessionLayer::new(manager));
    let answer = ask(&online, "/", Some(token.expose_secret())).await;
    assert_eq!(answer.status(), 500, "a session has no claims");
}
