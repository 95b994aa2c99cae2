//! Defaults of managers and layers, and logins that have others.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, header::RETRY_AFTER};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Error, ErrorKind, MemoryStore, OnFull, SessionLayer, TokenManager, TokenOptions,
};

use super::{Mood, Spy, bearer, logged_in, request};
use crate::stores::{DAY, HOUR};

#[tokio::test]
async fn a_manager_limits_the_lifetime_of_sessions() {
    let builder = TokenManager::builder(MemoryStore::new()).token_ttl(HOUR);
    let manager: TokenManager = builder.max_lifetime(2 * HOUR).build().unwrap();
    let issued = manager
        .set_token_with("al", TokenOptions::new())
        .await
        .unwrap();
    assert_eq!(issued.ends_at, Some(issued.issued_at + 2 * HOUR));
    let token = manager.set_token("al", None).await.unwrap();
    assert!(
        manager
            .refresh_token(token.expose_secret(), DAY)
            .await
            .unwrap()
    );
    let user = manager
        .check_token(token.expose_secret())
        .await
        .unwrap()
        .unwrap();
    assert!(user.token_remaining().unwrap() <= 2 * HOUR);
    let own = TokenOptions::new().max_lifetime(DAY);
    let issued = manager.set_token_with("al", own).await.unwrap();
    assert_eq!(issued.ends_at, Some(issued.issued_at + DAY));
    let builder = TokenManager::builder(MemoryStore::new());
    let refused = builder.max_lifetime(Duration::ZERO).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.to_string().contains("max_lifetime"), "{refused}");
}

#[tokio::test]
async fn a_login_may_have_a_limit_of_its_own() {
    let builder = TokenManager::builder(MemoryStore::new());
    let manager: TokenManager = builder.session_limit(2, OnFull::Reject).build().unwrap();
    let log_in = async |options| manager.set_token_with("al", options).await;
    for _ in 0..2 {
        log_in(TokenOptions::new()).await.unwrap();
    }
    let full = log_in(TokenOptions::new()).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::SessionLimit);
    log_in(TokenOptions::new().no_session_limit())
        .await
        .unwrap();
    log_in(TokenOptions::new().session_limit(4, OnFull::Reject))
        .await
        .unwrap();
    let full = log_in(TokenOptions::new().session_limit(4, OnFull::Reject)).await;
    assert_eq!(full.unwrap_err().kind(), ErrorKind::SessionLimit);
    let only = log_in(TokenOptions::new().session_limit(1, OnFull::EvictOldest))
        .await
        .unwrap();
    assert_eq!(only.evicted.len(), 4);
    for max in [0, 1001] {
        let error = log_in(TokenOptions::new().session_limit(max, OnFull::Reject)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(manager.list_user_tokens("al").await.unwrap().len(), 1);
}

#[tokio::test]
async fn every_hook_hears_every_event_in_its_turn() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut builder = TokenManager::builder(MemoryStore::new());
    for name in ["audit", "metrics"] {
        let told = Arc::clone(&told);
        builder = builder.on_event(move |_| told.lock().unwrap().push(name));
    }
    let manager: TokenManager = builder.build().unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    manager.delete_token(token.expose_secret()).await.unwrap();
    assert_eq!(*told.lock().unwrap(), ["audit", "metrics"].repeat(2));
}

/// Of the layer's own 503, and of that of a handler; and of no other response.
#[tokio::test]
async fn a_layer_says_when_to_try_again() {
    let spy = Spy::default();
    let (token, [layer, _]) = logged_in(&spy, "al").await;
    let inner = service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(match request.uri().path() {
            "/fault" => Response::from(Error::new(ErrorKind::Timeout, "slow")),
            _ => Response::new("in".to_owned()),
        })
    });
    let ask = async |layer: &SessionLayer<_>, path: &str| {
        let mut request = request([bearer(&token)]);
        *request.uri_mut() = path.parse().unwrap();
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        let after = response.headers().get(RETRY_AFTER).cloned();
        (response.status().as_u16(), after)
    };
    for (time, expected) in [
        (None, "1"),
        (Some(Duration::from_millis(2100)), "3"),
        (Some(Duration::from_secs(30)), "30"),
        (Some(Duration::ZERO), "0"),
    ] {
        let layer = match time {
            Some(time) => layer.clone().retry_after(time),
            None => layer.clone(),
        };
        spy.set(Mood::Works);
        assert_eq!(ask(&layer, "/").await, (200, None));
        let expected = (503, Some(expected.parse().unwrap()));
        assert_eq!(ask(&layer, "/fault").await, expected);
        spy.set(Mood::Fails(ErrorKind::Unavailable));
        assert_eq!(ask(&layer, "/").await, expected);
    }
}
