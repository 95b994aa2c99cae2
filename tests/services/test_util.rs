//! What the crate offers to tests of services.

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::{
    HeaderValue, Request, StatusCode,
    header::{AUTHORIZATION, COOKIE, RETRY_AFTER},
};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, time::Instant};
use tower::ServiceExt;
use tower_bearer_session::{
    ErrorKind, MemoryStore, SessionLayer, TokenManager, TokenOptions, User,
    middleware::{RequireScope, SessionCookie, TokenSource},
    store::Operation,
    test_util::{Faults, LoggedIn, bearer},
};

const SECOND: Duration = Duration::from_secs(1);

/// A request is that of the user who was asked for, before and after it has a body.
#[tokio::test]
async fn a_request_of_a_logged_in_user() {
    let (app, manager) = service(&Faults::new());
    let built = Request::get("/me")
        .logged_in_as(&manager, "alice")
        .await
        .body(Body::empty())
        .unwrap();
    assert!(built.headers()[AUTHORIZATION].is_sensitive());
    assert_eq!(body(&app, built).await, "you are alice");

    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/me".parse().unwrap();
    let request = request.logged_in_as(&manager, "漢字").await;
    assert_eq!(body(&app, request).await, "you are 漢字");
    assert_eq!(manager.list_user_tokens("alice").await.unwrap().len(), 1);
}

/// There is one `Authorization` header, the last one; the rest of the request stays.
#[tokio::test]
async fn who_logs_in_last_is_the_user() {
    let (app, manager) = service(&Faults::new());
    let request = Request::get("/me")
        .header(AUTHORIZATION, "Basic YTpi")
        .header("x-other", "1")
        .logged_in_as(&manager, "alice")
        .await
        .logged_in_as(&manager, "bob")
        .await
        .body(Body::empty())
        .unwrap();
    assert_eq!(request.headers()["x-other"], "1");
    assert_eq!(request.headers().len(), 2);
    assert_eq!(body(&app, request).await, "you are bob");
}

/// Options and cookies for requests, as a login has them.
#[tokio::test]
async fn a_request_of_a_login_with_options() {
    let (_, manager) = service(&Faults::new());
    let cookie = SessionCookie::new("session").unwrap();
    let layer = SessionLayer::new(manager.clone())
        .token_sources([TokenSource::authorization(), cookie.source()]);
    let app = Router::new()
        .route("/", get(async || "in"))
        .route_layer(RequireScope::new("write").unwrap())
        .route_layer(layer);
    let scopes = || TokenOptions::new().scopes(["write"]);
    let request = || Request::get("/");
    let built = request().logged_in_with(&manager, "alice", scopes()).await;
    assert_eq!(body(&app, built.body(Body::empty()).unwrap()).await, "in");
    let built = request()
        .header(COOKIE, "theme=dark")
        .logged_in_by_cookie(&manager, "alice", scopes(), &cookie)
        .await
        .body(Body::empty())
        .unwrap();
    let sent = built.headers()[COOKIE].to_str().unwrap();
    assert!(
        sent.starts_with("theme=dark; __Host-session=tbs1."),
        "{sent}"
    );
    assert!(built.headers()[COOKIE].is_sensitive());
    assert_eq!(body(&app, built).await, "in");
    let plain = request().body(Body::empty()).unwrap();
    let plain = plain
        .logged_in_by_cookie(&manager, "alice", TokenOptions::new(), &cookie)
        .await;
    let refused = app.clone().oneshot(plain).await.unwrap();
    assert_eq!(refused.status(), 403);
}

/// A builder's own error is still there for `body` to tell.
#[tokio::test]
async fn an_error_of_a_builder_is_kept() {
    let (_, manager) = service(&Faults::new());
    let builder = Request::get("no uri at all").logged_in_as(&manager, "alice");
    assert!(builder.await.body(()).is_err());
}

/// The header's value is for any client.
#[tokio::test]
async fn a_header_for_a_client() {
    let (app, manager) = service(&Faults::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/me", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, app).into_future());
    let value: HeaderValue = bearer(&manager, "alice").await;
    assert!(value.is_sensitive());
    let request = reqwest::Client::new().get(url).header(AUTHORIZATION, value);
    let response = request.send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "you are alice");
}

/// A login that fails ends the test, and says why.
#[tokio::test]
#[should_panic = "\"alice\" cannot be logged in: Error { kind: Unavailable"]
async fn a_login_that_fails_panics() {
    let faults = Faults::new();
    let (_, manager) = service(&faults);
    faults.fail(ErrorKind::Unavailable);
    bearer(&manager, "alice").await;
}

/// So many calls fail, and the next ones do not; none of those that failed reached the store.
#[tokio::test]
async fn the_next_calls_fail() {
    let (faults, store) = (Faults::new(), MemoryStore::new());
    let manager: TokenManager = TokenManager::new(faults.wrap(store.clone()));
    let logins = faults.on(Operation::Create);
    logins.fail_next(2, ErrorKind::Timeout);
    for _ in 0..2 {
        let error = manager.set_token("alice", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(store.is_empty());
    }
    manager.set_token("alice", None).await.unwrap();
    assert_eq!(store.len(), 1);
    assert_eq!(logins.calls(), 3);
    logins.fail_next(0, ErrorKind::Timeout);
    manager.set_token("alice", None).await.unwrap();
}

/// So many replies are lost, and the next ones are not; the store has done what it was asked for.
#[tokio::test]
async fn the_next_replies_are_lost() {
    let (faults, store) = (Faults::new(), MemoryStore::new());
    let manager: TokenManager = TokenManager::new(faults.wrap(store.clone()));
    let token = manager.set_token("alice", None).await.unwrap();
    faults
        .on(Operation::Delete)
        .lose_next_replies(1, ErrorKind::Timeout);
    let deleted = manager.delete_token(token.expose_secret()).await;
    assert_eq!(deleted.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(store.is_empty());
    let deleted = manager.delete_token(token.expose_secret()).await;
    assert!(!deleted.unwrap());
}

/// The store does at once what it is asked for, and replies late, also if the reply is lost.
#[tokio::test(start_paused = true)]
async fn replies_are_slow() {
    let (faults, store) = (Faults::new(), MemoryStore::new());
    let manager: TokenManager = TokenManager::new(faults.wrap(store.clone()));
    let token = manager.set_token("alice", None).await.unwrap();
    faults.on(Operation::Delete).delay_replies(SECOND);
    for lost in [false, true] {
        faults.lose_next_replies(lost.into(), ErrorKind::Timeout);
        let start = Instant::now();
        let deleting = manager.delete_token(token.expose_secret());
        let ended = async {
            tokio::time::sleep(SECOND / 2).await;
            assert!(store.is_empty());
        };
        let (deleted, ()) = tokio::join!(deleting, ended);
        assert_eq!((deleted.is_err(), start.elapsed()), (lost, SECOND));
    }
    faults.heal();
    let start = Instant::now();
    manager.delete_token(token.expose_secret()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// All calls fail, on every handle, until they are healed.
#[tokio::test]
async fn calls_fail_until_they_are_healed() {
    let faults = Faults::new();
    let (app, manager) = service(&faults);
    let value = bearer(&manager, "alice").await;
    faults.clone().fail(ErrorKind::Unavailable);
    for _ in 0..10 {
        let response = app.clone().oneshot(me(&value)).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
    }
    faults.heal();
    assert_eq!(body(&app, me(&value)).await, "you are alice");
}

/// A handle on one operation faults and counts that one only, and its faults come before those of all.
#[tokio::test]
async fn one_operation_fails() {
    let faults = Faults::new();
    let (_, manager) = service(&faults);
    let token = manager.set_token("alice", None).await.unwrap();
    let (token, checks) = (token.expose_secret(), faults.on(Operation::Check));
    let check = async || {
        let checked = manager.check_token(token).await;
        checked.map(|user| user.is_some()).map_err(|it| it.kind())
    };

    checks.fail(ErrorKind::Store);
    assert_eq!(check().await, Err(ErrorKind::Store));
    assert!(manager.refresh_token(token, SECOND).await.unwrap());
    assert_eq!((checks.calls(), faults.calls()), (1, 3));

    faults.fail(ErrorKind::Timeout);
    assert_eq!(check().await, Err(ErrorKind::Store));
    checks.heal();
    assert_eq!(check().await, Err(ErrorKind::Timeout));
    checks.fail_next(1, ErrorKind::Store);
    assert_eq!(check().await, Err(ErrorKind::Store));
    assert_eq!(check().await, Err(ErrorKind::Timeout));
    checks.fail(ErrorKind::Store);
    faults.heal();
    assert_eq!(check().await, Ok(true));
    assert_eq!(faults.on(Operation::List).calls(), 0);
}

/// Every method of the contract has an operation of its own.
#[tokio::test]
async fn every_call_is_intercepted_as_its_operation() {
    let faults = Faults::new();
    let manager = TokenManager::builder(faults.wrap(MemoryStore::new()))
        .load_user(async |_| Ok::<_, std::io::Error>(Some(1)))
        .build()
        .unwrap();
    let token = manager.set_token("alice", None).await.unwrap();
    let text = token.expose_secret();
    manager.refresh_token(text, SECOND).await.unwrap();
    manager
        .check_token_or_update_user(text, None)
        .await
        .unwrap();
    manager.list_user_tokens("alice").await.unwrap();
    manager.delete_token(text).await.unwrap();
    manager.delete_user_tokens("alice").await.unwrap();
    let operations = [
        Operation::Create,
        Operation::Update,
        Operation::Check,
        Operation::GetUser,
        Operation::PutUser,
        Operation::List,
        Operation::Delete,
        Operation::DeleteAll,
    ];
    let calls = operations.map(|operation| faults.on(operation).calls());
    assert!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
    assert_eq!(calls.iter().sum::<u64>(), faults.calls());
}

/// Calls take so much longer, those that fail too; a delay of one operation comes before that of all.
#[tokio::test(start_paused = true)]
async fn calls_are_slow() {
    let faults = Faults::new();
    let (_, manager) = service(&faults);
    let took = async || {
        let start = Instant::now();
        let outcome = manager.set_token("alice", None).await;
        (start.elapsed(), outcome.is_ok())
    };
    assert_eq!(took().await, (Duration::ZERO, true));
    faults.delay(2 * SECOND);
    assert_eq!(took().await, (2 * SECOND, true));
    faults.on(Operation::Create).delay(SECOND);
    assert_eq!(took().await, (SECOND, true));
    faults.fail_next(1, ErrorKind::Timeout);
    assert_eq!(took().await, (SECOND, false));
    faults.on(Operation::Create).heal();
    assert_eq!(took().await, (2 * SECOND, true));
    faults.heal();
    assert_eq!(took().await, (Duration::ZERO, true));
}

fn service(faults: &Faults) -> (Router, TokenManager) {
    let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
    let app = Router::new()
        .route(
            "/me",
            get(async |user: User| format!("you are {}", user.id())),
        )
        .layer(SessionLayer::new(manager.clone()));
    (app, manager)
}

fn me(value: &HeaderValue) -> Request<Body> {
    let request = Request::get("/me").header(AUTHORIZATION, value);
    request.body(Body::empty()).unwrap()
}

async fn body(app: &Router, request: Request<Body>) -> String {
    let response = app.clone().oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().into()).unwrap()
}
