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

/// The handle that a handler has of a request with this token.
async fn handle(manager: &TokenManager, token: &Token) -> Session {
    let inner = service_fn(async |request: Request<()>| {
        let session: &Session = request.extensions().get().unwrap();
        Ok::<_, Infallible>(Response::new(Some(session.clone())))
    });
    let service = SessionLayer::new(manager.clone()).layer(inner);
    let response = service.oneshot(request(token)).await.unwrap();
    response.into_body().unwrap()
}

async fn replaced(manager: &TokenManager, token: &Token, options: ReplaceOptions) -> Token {
    let mut response = call(manager, token, Some(options)).await;
    match response.extensions_mut().remove::<Replacement>() {
        Some(Replacement::Replaced { issued, .. }) => issued.token,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_handler_replaces_the_token_of_its_request() {
    let manager = TokenManager::new(MemoryStore::new());
    let token = manager.set_token("al", HOUR).await.unwrap();
    let new = replaced(&manager, &token, ReplaceOptions::new().grace(HOUR)).await;
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
    let (before, calls) = (faults.on(Operation::Update).calls(), faults.calls());
    for (token, renewals) in [(&token, 0), (&new, 1)] {
        let layer = SessionLayer::new(manager.clone()).refresh_below(HOUR / 2);
        let service = layer.layer(service_fn(replace));
        let response = service.oneshot(request(token)).await.unwrap();
        assert_eq!(response.status(), 200);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(faults.on(Operation::Update).calls() - before, renewals);
    }
    // The checks of two requests and one renewal, which looks nothing up.
    assert_eq!(faults.calls() - calls, 3);
    let session = &manager.list_user_tokens("al").await.unwrap()[0];
    assert!(session.refreshed_at() > session.created_at());
}

/// The token of a caller that went away, or whose reply was lost, is the current one again.
#[tokio::test(start_paused = true)]
async fn a_replacement_whose_token_reaches_nobody_is_undone() {
    let faults = Faults::new();
    let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
    let mut token = manager.set_token("al", DAY).await.unwrap();
    for is_dropped in [true, false, true] {
        let updates = faults.on(Operation::Update).calls();
        let replacing = manager.replace_token(token.expose_secret(), ReplaceOptions::new());
        if is_dropped {
            let moment = Duration::from_secs(1);
            faults.on(Operation::Update).delay(20 * moment);
            let dropped = tokio::time::timeout(10 * moment, replacing).await;
            dropped.unwrap_err();
        } else {
            faults
                .on(Operation::Update)
                .lose_next_replies(1, ErrorKind::Unconfirmed);
            let error = replacing.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unconfirmed);
        }
        tokio::time::sleep(HOUR).await;
        faults.heal();
        assert_eq!(faults.on(Operation::Update).calls() - updates, 2);
        // Its grace would be over by now.
        let new = replaced(&manager, &token, ReplaceOptions::new()).await;
        assert_eq!(call(&manager, &token, None).await.status(), 200);
        assert_eq!(call(&manager, &new, None).await.status(), 200);
        token = new;
    }
}

/// A session that has gained something by such a replacement is ended: whoever has copied the old token must not have it.
/// If the replacement was not done, the session stays.
#[tokio::test(start_paused = true)]
async fn nobody_gains_by_a_replacement_that_is_undone() {
    for options in [
        ReplaceOptions::new().authenticated(),
        ReplaceOptions::new().scopes(["admin"]),
        ReplaceOptions::new().metadata("role", "admin"),
    ] {
        let faults = Faults::new();
        let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
        let token = manager.set_token("al", DAY).await.unwrap();
        let replace = || manager.replace_token(token.expose_secret(), options.clone());
        faults
            .on(Operation::Update)
            .fail_next(1, ErrorKind::Unavailable);
        assert_eq!(replace().await.unwrap_err().kind(), ErrorKind::Unavailable);
        tokio::time::sleep(HOUR).await;
        assert_eq!(call(&manager, &token, None).await.status(), 200);

        let moment = Duration::from_secs(1);
        faults.on(Operation::Update).delay(20 * moment);
        let dropped = tokio::time::timeout(10 * moment, replace()).await;
        dropped.unwrap_err();
        tokio::time::sleep(HOUR).await;
        faults.heal();
        assert_eq!(call(&manager, &token, None).await.status(), 401);
        assert_eq!(manager.list_user_tokens("al").await.unwrap(), []);
    }
}

/// A handle of a request that has lasted longer than the grace: the token was presented before.
#[tokio::test(start_paused = true)]
async fn an_old_handle_is_no_reuse() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let token = manager.set_token("al", DAY).await.unwrap();
    let handle = handle(&manager, &token).await;
    let new = replaced(&manager, &token, ReplaceOptions::new()).await;
    tokio::time::sleep(HOUR).await;
    assert!(!handle.refresh(None).await.unwrap());
    let again = handle.replace_token(ReplaceOptions::new()).await.unwrap();
    assert!(matches!(again, Replacement::AlreadyReplaced), "{again:?}");
    assert_eq!(call(&manager, &new, None).await.status(), 200);
}

/// A request whose user is loaded for longer than the grace.
#[tokio::test(start_paused = true)]
async fn a_slow_load_is_no_reuse() {
    let builder = TokenManager::builder(MemoryStore::new());
    let slow = builder.load_user(async |id: String| {
        tokio::time::sleep(Duration::from_secs(8)).await;
        Ok::<_, Infallible>(Some(id))
    });
    let manager = slow.build().unwrap();
    let token = manager.set_token("al", DAY).await.unwrap();
    let checking = manager.check_token_or_update_user(token.expose_secret(), None);
    let replacing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let options = ReplaceOptions::new().grace(Duration::from_secs(2));
        manager.replace_token(token.expose_secret(), options).await
    };
    let (user, replaced) = tokio::join!(checking, replacing);
    assert!(user.unwrap().is_none());
    let Replacement::Replaced { issued, .. } = replaced.unwrap() else {
        panic!("the token is current");
    };
    assert!(
        manager
            .check_token(issued.token.expose_secret())
            .await
            .unwrap()
            .is_some()
    );
}

/// A stream ends with the grace of its token, and that of the new token goes on.
#[tokio::test(start_paused = true)]
async fn a_stream_of_a_replaced_token_ends_with_its_grace() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let token = manager.set_token("al", DAY).await.unwrap();
    let old = handle(&manager, &token).await;
    let mut end = std::pin::pin!(old.revoked());
    let moment = Duration::from_secs(1);
    tokio::time::timeout(moment, &mut end).await.unwrap_err();
    let new = replaced(&manager, &token, ReplaceOptions::new().grace(60 * moment)).await;
    let new = handle(&manager, &new).await;
    tokio::time::timeout(50 * moment, &mut end)
        .await
        .unwrap_err();
    tokio::time::timeout(12 * moment, &mut end).await.unwrap();
    let goes_on = tokio::time::timeout(60 * moment, new.revoked());
    goes_on.await.unwrap_err();
}

/// A replacement checks the token and changes the session; a handler's token has been checked.
#[tokio::test]
async fn a_replacement_takes_two_calls_and_a_handler_one() {
    let faults = Faults::new();
    let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
    let token = manager.set_token("al", HOUR).await.unwrap();
    let counts = || [Operation::Check, Operation::Update].map(|one| faults.on(one).calls());
    let before = (faults.calls(), counts());
    let replacing = manager.replace_token(token.expose_secret(), ReplaceOptions::new());
    let Replacement::Replaced { issued, .. } = replacing.await.unwrap() else {
        panic!("the token is current");
    };
    let after = (faults.calls(), counts());
    assert_eq!(after.0 - before.0, 2);
    assert_eq!([after.1[0] - before.1[0], after.1[1] - before.1[1]], [1, 1]);
    // The check of the request, and the change.
    replaced(&manager, &issued.token, ReplaceOptions::new()).await;
    assert_eq!(faults.calls() - after.0, 2);
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
