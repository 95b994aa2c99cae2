//! Replacing the token of a request in its handler, and requests with replaced tokens.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Error, ErrorKind, MemoryStore, ReplaceOptions, Replacement, Session, SessionLayer, Token,
    TokenManager, store::Operation, test_util::Faults,
};

use crate::stores::{DAY, HOUR};

/// Replaces the token of the request with these options, if it asks for that.
async fn replace(request: Request<()>) -> Result<Response<()>, Infallible> {
    let mut response = Response::new(());
    if let Some(options) = request.extensions().get::<ReplaceOptions>() {
        let session = request.extensions().get::<Session>().unwrap();
        let replaced = session.replace_token(options.clone()).await.unwrap();
        response.extensions_mut().insert(replaced);
    }
    Ok(response)
}

fn request(token: &Token) -> Request<()> {
    let request = Request::get("/");
    let request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
    request.body(()).unwrap()
}

async fn call(
    manager: &TokenManager,
    token: &Token,
    options: Option<ReplaceOptions>,
) -> Response<()> {
    let service = SessionLayer::new(manager.clone()).layer(service_fn(replace));
    let mut request = request(token);
    if let Some(options) = options {
        request.extensions_mut().insert(options);
    }
    let response = service.oneshot(request).await.unwrap();
    response.map(|_| ())
}

async fn replaced(manager: &TokenManager, token: &Token, options: ReplaceOptions) -> Token {
    let mut response = call(manager, token, Some(options)).await;
    match response.extensions_mut().remove::<Replacement>() {
        Some(Replacement::Replaced { token, .. }) => token,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_handler_replaces_the_token_of_its_request() {
    let manager = TokenManager::new(MemoryStore::new());
    let token = manager.set_token("al", HOUR).await.unwrap();
    let new = replaced(&manager, &token, ReplaceOptions::new()).await;
    for token in [&token, &new] {
        let status = call(&manager, token, None).await.status();
        assert_eq!(status, StatusCode::OK);
    }
    // A request with the replaced token has the session, but cannot replace the token.
    let response = call(&manager, &token, Some(ReplaceOptions::new())).await;
    let outcome = response.extensions().get::<Replacement>();
    assert!(matches!(outcome, Some(Replacement::AlreadyReplaced)));
}

/// A 401 for the request, and the session has ended before it is answered.
#[tokio::test]
async fn a_request_with_a_reused_token_ends_the_session() {
    let manager = TokenManager::new(MemoryStore::new());
    let token = manager.set_token("al", HOUR).await.unwrap();
    let no_grace = ReplaceOptions::new().grace(Duration::ZERO);
    let new = replaced(&manager, &token, no_grace).await;
    assert_eq!(call(&manager, &new, None).await.status(), 200);
    assert_eq!(call(&manager, &token, None).await.status(), 401);
    assert_eq!(call(&manager, &new, None).await.status(), 401);
    assert_eq!(manager.list_user_tokens("al").await.unwrap(), []);
}

/// The session of a reused token cannot be ended: that is a fault, and the next request with the token tries again.
#[tokio::test]
async fn a_reuse_that_cannot_be_dealt_with_is_a_503() {
    let faults = Faults::new();
    let manager = TokenManager::new(faults.wrap(MemoryStore::new()));
    let token = manager.set_token("al", HOUR).await.unwrap();
    let no_grace = ReplaceOptions::new().grace(Duration::ZERO);
    let new = replaced(&manager, &token, no_grace).await;
    faults.on(Operation::Delete).fail(ErrorKind::Unavailable);
    assert_eq!(call(&manager, &token, None).await.status(), 503);
    assert_eq!(call(&manager, &new, None).await.status(), 200);
    faults.heal();
    assert_eq!(call(&manager, &token, None).await.status(), 401);
    assert_eq!(call(&manager, &new, None).await.status(), 401);
}

/// Sliding expiry renews a session by its current token only.
#[tokio::test(start_paused = true)]
async fn a_replaced_token_renews_nothing() {
    let faults = Faults::new();
    let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
    let token = manager.set_token("al", HOUR).await.unwrap();
    let new = replaced(&manager, &token, ReplaceOptions::new().grace(DAY)).await;
    tokio::time::sleep(HOUR * 3 / 4).await;
    let before = faults.on(Operation::Update).calls();
    for (token, renewals) in [(&token, 0), (&new, 1)] {
        let layer = SessionLayer::new(manager.clone()).refresh_below(HOUR / 2);
        let service = layer.layer(service_fn(replace));
        let response = service.oneshot(request(token)).await.unwrap();
        assert_eq!(response.status(), 200);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(faults.on(Operation::Update).calls() - before, renewals);
    }
    let session = &manager.list_user_tokens("al").await.unwrap()[0];
    assert!(session.refreshed_at() > session.created_at());
}

/// The client that went away has the replaced token, which works for its grace.
#[tokio::test]
async fn a_dropped_replacement_is_completed() {
    let faults = Faults::new();
    let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
    let token = manager.set_token("al", HOUR).await.unwrap();
    faults
        .on(Operation::Update)
        .delay(Duration::from_millis(20));
    let options = ReplaceOptions::new().authenticated();
    let replacing = manager.replace_token(token.expose_secret(), options);
    let dropped = tokio::time::timeout(Duration::from_millis(1), replacing).await;
    dropped.unwrap_err();
    let is_replaced = async || {
        let session = &manager.list_user_tokens("al").await.unwrap()[0];
        session.authenticated_at() > session.created_at()
    };
    while !is_replaced().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        manager
            .check_token(token.expose_secret())
            .await
            .unwrap()
            .is_some()
    );
    let again = manager.replace_token(token.expose_secret(), ReplaceOptions::new());
    assert!(matches!(again.await.unwrap(), Replacement::AlreadyReplaced));
}

/// An error of a replacement is a fault of the store, never a refusal.
#[tokio::test]
async fn a_replacement_fails_with_the_store() -> Result<(), Error> {
    let faults = Faults::new();
    let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
    let token = manager.set_token("al", HOUR).await?;
    for operation in [Operation::Check, Operation::Update] {
        faults.on(operation).fail(ErrorKind::Timeout);
        let replaced = manager.replace_token(token.expose_secret(), ReplaceOptions::new());
        assert_eq!(replaced.await.unwrap_err().kind(), ErrorKind::Timeout);
        faults.heal();
    }
    assert!(manager.check_token(token.expose_secret()).await?.is_some());
    Ok(())
}
