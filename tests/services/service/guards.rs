//! Guards under a layer: what they let through, and how they refuse the rest.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use proptest::prelude::*;
use serde_json::Value;
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    ErrorKind, EventKind, MemoryStore, Rejection, ReplaceOptions, Replacement, Session,
    SessionLayer, Token, TokenManager, TokenOptions,
    middleware::{
        Guard, OnRejection, ProblemJson, RequirePredicate, RequireRecentAuthentication,
        RequireScope, RequireSession,
    },
};

use super::{Profile, Spy, bearer, logged_in, manager, request};

const MINUTE: Duration = Duration::from_secs(60);

/// A service that answers what it is called with.
#[derive(Clone)]
struct Inner;

impl tower::Service<Request<()>> for Inner {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        std::future::ready(Ok(Response::new("in".to_owned())))
    }
}

/// The answer to a request with this token, if there is one.
async fn ask<R>(
    layer: &SessionLayer<Value, R>,
    guarded: Guard<Inner>,
    token: Option<&Token>,
) -> Response<String>
where
    R: OnRejection<String, Body = String> + Clone,
{
    let request = request(token.map(bearer));
    layer.layer(guarded).oneshot(request).await.unwrap()
}

fn challenge(response: &Response<String>) -> Option<&str> {
    let challenge = response.headers().get(WWW_AUTHENTICATE)?;
    challenge.to_str().ok()
}

async fn replace(manager: &TokenManager, token: &Token, options: ReplaceOptions) {
    let replaced = manager.replace_token(token.expose_secret(), options).await;
    assert!(matches!(replaced, Ok(Replacement::Replaced { .. })));
}

fn scope(scope: &str) -> RequireScope {
    RequireScope::new(scope).unwrap()
}

#[tokio::test]
async fn a_session_with_the_scope_is_let_through() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let layer = SessionLayer::new(manager.clone());
    let options = TokenOptions::new().scopes(["orders:read", "orders:write"]);
    let may = manager.set_token_with("al", options).await.unwrap().token;
    let options = TokenOptions::new().scopes(["orders:read", "orders"]);
    let may_not = manager.set_token_with("al", options).await.unwrap().token;
    let without = manager.set_token("al", None).await.unwrap();
    let guarded = || scope("orders:write").layer(Inner);
    assert_eq!(ask(&layer, guarded(), Some(&may)).await.body(), "in");
    for token in [&may_not, &without] {
        let refused = ask(&layer, guarded(), Some(token)).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(
            challenge(&refused),
            Some(
                "Bearer realm=\"api\", error=\"insufficient_scope\", \
                 error_description=\"the session lacks a scope\", scope=\"orders:write\""
            )
        );
        assert_eq!(refused.headers()[CACHE_CONTROL], "no-store");
    }
    // Several guards ask for all of their scopes.
    let both = || scope("orders:read").layer(scope("orders:write").layer(Inner));
    let ask_both = async |token: &Token| {
        let service = layer.layer(both());
        let answer = service.oneshot(request([bearer(token)])).await.unwrap();
        answer.status()
    };
    assert_eq!(ask_both(&may).await, StatusCode::OK);
    assert_eq!(ask_both(&may_not).await, StatusCode::FORBIDDEN);
}

/// The scopes of a session are those of its last change, whichever of its tokens is presented.
#[tokio::test]
async fn a_replacement_changes_what_a_session_may_do() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let layer = SessionLayer::new(manager.clone());
    let token = manager.set_token("al", None).await.unwrap();
    let status = async || {
        ask(&layer, scope("admin").layer(Inner), Some(&token))
            .await
            .status()
    };
    for (scopes, expected) in [(&["admin"][..], 200), (&[], 403), (&["admin", "x"], 200)] {
        let current = manager.set_token("bo", None).await.unwrap();
        let options = || ReplaceOptions::new().scopes(scopes.iter().copied());
        replace(&manager, &current, options()).await;
        let of_bo = ask(&layer, scope("admin").layer(Inner), Some(&current)).await;
        assert_eq!(of_bo.status(), expected);
        assert_eq!(status().await, 403, "another session");
    }
}

/// By the store's clock, which is not the system's.
#[tokio::test(start_paused = true)]
async fn an_old_login_is_asked_for_again() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let layer = SessionLayer::new(manager.clone());
    let token = manager.set_token("al", None).await.unwrap();
    let guarded = || RequireRecentAuthentication::new(5 * MINUTE).layer(Inner);
    assert_eq!(ask(&layer, guarded(), Some(&token)).await.status(), 200);
    tokio::time::advance(5 * MINUTE).await;
    assert_eq!(ask(&layer, guarded(), Some(&token)).await.status(), 200);
    tokio::time::advance(Duration::from_millis(1)).await;
    // A refresh is no authentication.
    assert!(
        manager
            .refresh_token(token.expose_secret(), None)
            .await
            .unwrap()
    );
    let refused = ask(&layer, guarded(), Some(&token)).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        challenge(&refused),
        Some(
            "Bearer realm=\"api\", error=\"insufficient_user_authentication\", \
             error_description=\"the last login is too old\", max_age=\"300\""
        )
    );
    let again = ReplaceOptions::new().authenticated();
    let replaced = manager.replace_token(token.expose_secret(), again).await;
    let Ok(Replacement::Replaced { issued, .. }) = replaced else {
        panic!("the token is current");
    };
    let new = issued.token;
    assert_eq!(ask(&layer, guarded(), Some(&new)).await.status(), 200);
    // Whoever has copied the old token gains nothing, although it works in its grace.
    assert_eq!(ask(&layer, guarded(), Some(&token)).await.status(), 401);
    let session = RequireSession::new().layer(Inner);
    assert_eq!(ask(&layer, session, Some(&token)).await.status(), 200);
}

#[tokio::test]
async fn a_predicate_decides_by_the_session() {
    let spy = Spy::default();
    let manager = manager(&spy);
    let layer = SessionLayer::new(manager.clone());
    let is_al = |session: &Session<Profile>| {
        session
            .user()
            .detail()
            .is_some_and(|detail| detail.name == "AL")
    };
    for (user, expected) in [("al", StatusCode::OK), ("bo", StatusCode::FORBIDDEN)] {
        let token = manager.set_token(user, None).await.unwrap();
        let service = layer.layer(RequirePredicate::new(is_al).layer(Inner));
        let answer = service.oneshot(request([bearer(&token)])).await.unwrap();
        assert_eq!(answer.status(), expected);
        // There is nothing that the client could present instead.
        assert_eq!(challenge(&answer), None);
    }
}

/// With nothing cached to be loaded, a guarded request makes the one call of its check.
#[tokio::test]
async fn a_guard_makes_no_call() {
    let spy = Spy::default();
    let manager: TokenManager = TokenManager::new(spy.store());
    let layer = SessionLayer::new(manager.clone());
    let options = TokenOptions::new().scopes(["a"]);
    let token = manager.set_token_with("al", options).await.unwrap().token;
    spy.calls();
    for (guarded, expected) in [
        (RequireSession::new().layer(Inner), 200),
        (scope("a").layer(Inner), 200),
        (scope("b").layer(Inner), 403),
        (RequireRecentAuthentication::new(MINUTE).layer(Inner), 200),
        (RequirePredicate::new(|_: &Session| false).layer(Inner), 403),
    ] {
        assert_eq!(ask(&layer, guarded, Some(&token)).await.status(), expected);
        assert_eq!(spy.calls(), 1);
    }
}

/// Under an optional layer, a guard refuses strangers as a required layer does.
#[tokio::test]
async fn strangers_are_refused_with_the_reason() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let required = SessionLayer::new(manager.clone()).realm("shop").unwrap();
    let optional = required.clone().optional();
    let dead = manager.set_token("al", None).await.unwrap();
    manager.delete_token(dead.expose_secret()).await.unwrap();
    for token in [None, Some(&dead)] {
        let expected = ask(&required, RequireSession::new().layer(Inner), token).await;
        assert_eq!(expected.status(), 401);
        for guarded in [
            RequireSession::new().layer(Inner),
            scope("a").layer(Inner),
            RequireRecentAuthentication::new(MINUTE).layer(Inner),
            RequirePredicate::new(|_: &Session| true).layer(Inner),
        ] {
            let refused = ask(&optional, guarded, token).await;
            assert_eq!(refused.status(), 401);
            assert_eq!(challenge(&refused), challenge(&expected));
        }
    }
}

/// A guard without a layer around it, or with one of another user type, lets nobody through.
#[tokio::test]
async fn a_guard_without_its_layer_is_a_mistake_of_the_program() {
    let (token, layers) = logged_in(&Spy::default(), "al").await;
    let of_values = [
        RequireSession::new().layer(Inner),
        scope("a").layer(Inner),
        RequireRecentAuthentication::new(MINUTE).layer(Inner),
        RequirePredicate::new(|_: &Session| true).layer(Inner),
    ];
    for guarded in of_values {
        let alone = guarded
            .clone()
            .oneshot(request([bearer(&token)]))
            .await
            .unwrap();
        assert_eq!(alone.status(), StatusCode::INTERNAL_SERVER_ERROR);
        for layer in &layers {
            for authorization in [None, Some(bearer(&token))] {
                let service = layer.layer(guarded.clone());
                let answer = service
                    .oneshot(request(authorization.clone()))
                    .await
                    .unwrap();
                // A required layer refuses a stranger itself.
                let expected = match (authorization, layer) {
                    (None, layer) if std::ptr::eq(layer, &layers[0]) => 401,
                    _ => 500,
                };
                assert_eq!(answer.status(), expected);
            }
        }
    }
    let of_profiles = [
        RequireSession::new().user_type::<Profile>().layer(Inner),
        RequireRecentAuthentication::new(MINUTE)
            .user_type::<Profile>()
            .layer(Inner),
        RequirePredicate::new(|_: &Session<Profile>| true).layer(Inner),
    ];
    for guarded in of_profiles {
        for layer in &layers {
            let service = layer.layer(guarded.clone());
            let answer = service.oneshot(request([bearer(&token)])).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    }
    let scoped = scope("a").user_type::<Profile>().layer(Inner);
    let answer = layers[0]
        .layer(scoped)
        .oneshot(request([bearer(&token)]))
        .await
        .unwrap();
    assert_eq!(answer.status(), 403);
}

/// Realm and hook of the layer apply to what guards refuse, and the rejection is there for layers further out.
#[tokio::test]
async fn the_layer_post_processes_the_refusals_of_guards() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let token = manager.set_token("al", None).await.unwrap();
    let layer = SessionLayer::new(manager).realm("api-shop");
    let layer = layer.unwrap().on_rejection(ProblemJson);
    let refused = ask(&layer, scope("a").layer(Inner), Some(&token)).await;
    assert_eq!(refused.status(), 403);
    assert!(
        challenge(&refused)
            .unwrap()
            .starts_with("Bearer realm=\"api-shop\", error=\"insufficient_scope\"")
    );
    assert_eq!(refused.headers()[CONTENT_TYPE], "application/problem+json");
    let problem: Value = serde_json::from_str(refused.body()).unwrap();
    assert_eq!(problem["status"], 403);
    assert_eq!(problem["detail"], "the session lacks the scope a");
    let rejection = refused.extensions().get::<Rejection>();
    assert!(
        matches!(rejection, Some(Rejection::InsufficientScope(scopes)) if scopes.contains("a"))
    );
    for (guarded, status, detail) in [
        (
            RequireRecentAuthentication::new(Duration::ZERO).layer(Inner),
            401,
            "this needs a more recent login",
        ),
        (
            RequirePredicate::new(|_: &Session| false).layer(Inner),
            403,
            "this session may not do that",
        ),
    ] {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let refused = ask(&layer, guarded, Some(&token)).await;
        assert_eq!(refused.status(), status);
        let problem: Value = serde_json::from_str(refused.body()).unwrap();
        assert_eq!(problem["detail"], detail);
    }
}

/// Each refusal is an event of the session, with its reason.
#[tokio::test]
async fn refusals_of_guards_are_events() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let manager: TokenManager = TokenManager::builder(MemoryStore::new())
        .on_event(move |event| {
            if let EventKind::Refused {
                user_id,
                token_id,
                reason,
                ..
            } = event.kind()
            {
                let refused = (
                    user_id.map(str::to_owned),
                    token_id.copied(),
                    reason.as_str(),
                );
                log.lock().unwrap().push(refused);
            }
        })
        .build()
        .unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    let layer = SessionLayer::new(manager);
    tokio::time::sleep(Duration::from_millis(2)).await;
    for (guarded, reason) in [
        (scope("a").layer(Inner), "insufficient_scope"),
        (
            RequireRecentAuthentication::new(Duration::ZERO).layer(Inner),
            "stale_authentication",
        ),
        (
            RequirePredicate::new(|_: &Session| false).layer(Inner),
            "forbidden",
        ),
    ] {
        ask(&layer, guarded, Some(&token)).await;
        let told = std::mem::take(&mut *told.lock().unwrap());
        assert_eq!(told, [(Some("al".to_owned()), Some(*token.id()), reason)]);
    }
}

/// On an axum router: `route_layer` guards the routes before it, and no others.
#[tokio::test]
async fn axum_routes_are_guarded_one_by_one() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let app = Router::new()
        .route("/orders", get(async || "orders"))
        .route_layer(scope("orders"))
        .route(
            "/me",
            get(async |session: Session| session.user().id().to_owned()),
        )
        .route_layer(RequireSession::new())
        .route("/", get(async || "welcome"))
        .layer(SessionLayer::new(manager.clone()).optional());
    let options = TokenOptions::new().scopes(["orders"]);
    let may = manager.set_token_with("al", options).await.unwrap().token;
    let may_not = manager.set_token("al", None).await.unwrap();
    for (token, expected) in [
        (None, [401, 401, 200]),
        (Some(&may_not), [403, 200, 200]),
        (Some(&may), [200, 200, 200]),
    ] {
        for (path, expected) in ["/orders", "/me", "/"].into_iter().zip(expected) {
            let mut request = request(token.map(bearer)).map(|()| Body::empty());
            *request.uri_mut() = path.parse().unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), expected, "{path}");
        }
    }
}

#[test]
fn what_is_not_one_scope_is_refused() {
    for bad in ["", "two words", "quo\"te", "back\\slash", "é", "line\n"] {
        let error = RequireScope::new(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{bad:?}");
    }
}

proptest! {
    /// Whatever scopes there are, a guard lets exactly those sessions through that have its own, and its challenge is a
    /// header value that names it.
    #[test]
    fn a_scope_is_compared_as_a_whole(
        scopes in proptest::collection::vec("[!#-\\[\\]-~]{1,8}", 0..6),
        wanted in "[!#-\\[\\]-~]{1,8}",
        is_granted: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut scopes = scopes;
            if is_granted {
                scopes.push(wanted.clone());
            }
            let manager: TokenManager = TokenManager::new(MemoryStore::new());
            let options = TokenOptions::new().scopes(scopes.clone());
            let token = manager.set_token_with("al", options).await.unwrap().token;
            let layer = SessionLayer::new(manager);
            let answer = ask(&layer, scope(&wanted).layer(Inner), Some(&token)).await;
            if scopes.contains(&wanted) {
                assert_eq!(answer.status(), 200);
            } else {
                assert_eq!(answer.status(), 403);
                let scope = format!("scope=\"{wanted}\"");
                let challenge = answer.headers().get(WWW_AUTHENTICATE).map(HeaderValue::to_str);
                assert!(challenge.unwrap().unwrap().ends_with(&scope));
            }
        });
    }
}

/// A service whose body has a default is all that a guard needs.
#[tokio::test]
async fn a_guard_wraps_any_service() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let token = manager.set_token("al", None).await.unwrap();
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(vec![1_u8])));
    let service = SessionLayer::new(manager).layer(RequireSession::new().layer(inner));
    let answer = service.oneshot(request([bearer(&token)])).await.unwrap();
    assert_eq!(answer.body(), &[1]);
}
