use std::{convert::Infallible, time::Duration};

use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::Value;
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    ErrorKind, MemoryStore, Rejection, Session, SessionLayer, TokenManager, User,
};

use super::{Mood, Profile, Spy, bearer, logged_in, manager, request};

/// What the inner service saw of a request, which it hands back as the response's body.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    user: Option<String>,
    detail: Option<String>,
    token_id: Option<String>,
    session: Option<String>,
    other_types: bool,
    sensitive: Option<bool>,
}

/// A live token: user and session are in the extensions, under the layer's own type only.
#[tokio::test]
async fn a_live_token_brings_its_user_and_session() {
    let spy = Spy::default();
    let (token, layers) = logged_in(&spy, "al").await;
    for layer in layers {
        let response = look(layer, request([bearer(&token)])).await;
        let expected = Seen {
            user: Some("al".to_owned()),
            detail: Some("AL".to_owned()),
            token_id: Some(token.id().to_string()),
            session: Some(token.id().to_string()),
            other_types: false,
            sensitive: Some(true),
        };
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body(), expected);
    }
}

/// Optional mode lets requests without a live token through with nothing in the extensions.
#[tokio::test]
async fn an_anonymous_request_brings_nobody() {
    let spy = Spy::default();
    let (token, [_, optional]) = logged_in(&spy, "al").await;
    manager(&spy)
        .delete_token(token.expose_secret())
        .await
        .unwrap();
    for header in [None, Some("Basic eA==".into()), Some(bearer(&token))] {
        let response = look(optional.clone(), request(&header)).await;
        assert_eq!(response.status(), StatusCode::OK, "{header:?}");
        let expected = Seen {
            sensitive: header.map(|_| true),
            ..Seen::default()
        };
        assert_eq!(response.into_body(), expected);
    }
}

/// A user whom the loader does not know is nobody, whatever their token.
#[tokio::test]
async fn a_user_who_is_gone_is_refused() {
    let spy = Spy::default();
    let (token, [required, optional]) = logged_in(&spy, "nobody").await;
    let response = look(required, request([bearer(&token)])).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let response = look(optional, request([bearer(&token)])).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().user, None);
}

/// The innermost of two layers for one type decides: what an outer one found must not show through.
#[tokio::test]
async fn an_inner_layer_overrules_an_outer_one() {
    let shop = TokenManager::builder(MemoryStore::new())
        .user_type::<Profile>()
        .build()
        .unwrap();
    let admin = manager(&Spy::default());
    let (customer, clerk) = (
        shop.set_token("customer", None).await.unwrap(),
        admin.set_token("clerk", None).await.unwrap(),
    );
    let (shop, admin) = (SessionLayer::new(shop), SessionLayer::new(admin));
    let service = shop
        .optional()
        .layer(admin.optional().layer(service_fn(see)));

    let response = service.clone().oneshot(request([bearer(&clerk)])).await;
    assert_eq!(response.unwrap().body().user.as_deref(), Some("clerk"));
    let response = service.oneshot(request([bearer(&customer)])).await;
    let expected = Seen {
        sensitive: Some(true),
        ..Seen::default()
    };
    assert_eq!(response.unwrap().into_body(), expected);
}

/// A request costs the store one call if its token is well-formed, else none.
#[tokio::test]
async fn only_a_token_costs_a_store_call() {
    let spy = Spy::default();
    let (token, layers) = logged_in(&spy, "al").await;
    let malformed = [
        vec![],
        vec!["Basic eA==".to_owned()],
        vec!["Bearer".to_owned()],
        vec!["Bearer x".to_owned()],
        vec![bearer(&token).replace("tbs1", "tbs2")],
        vec![format!("{}x", bearer(&token))],
        vec![format!("Bearer {}", "x".repeat(1 << 20))],
        vec![bearer(&token), bearer(&token)],
    ];
    for layer in &layers {
        for headers in &malformed {
            look(layer.clone(), request(headers)).await;
            assert_eq!(spy.calls(), 0);
        }
    }
    // The first check loads the user; then one call is enough.
    look(layers[0].clone(), request([bearer(&token)])).await;
    spy.calls();
    for layer in layers {
        look(layer, request([bearer(&token)])).await;
        assert_eq!(spy.calls(), 1);
    }
}

/// A store that fails makes a 503 in both modes: nobody is logged out by an outage, and nobody let in.
#[tokio::test]
async fn a_failing_store_is_a_503() {
    let spy = Spy::default();
    let (token, layers) = logged_in(&spy, "al").await;
    for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Store] {
        spy.set(Mood::Fails(kind));
        for layer in layers.clone() {
            assert_fault(look(layer, request([bearer(&token)])).await, kind);
        }
        // Whoever shows no token is not concerned.
        let [required, optional] = layers.clone();
        let response = look(required, request(None::<&str>)).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let response = look(optional, request(None::<&str>)).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    spy.set(Mood::Works);
    for layer in layers {
        let response = look(layer, request([bearer(&token)])).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// A user loader that fails makes a 503 as well.
#[tokio::test]
async fn a_failing_loader_is_a_503() {
    let spy = Spy::default();
    let (token, layers) = logged_in(&spy, "broken").await;
    for layer in layers {
        let response = look(layer, request([bearer(&token)])).await;
        assert_fault(response, ErrorKind::LoadUser);
    }
}

/// The layer says why it rejected a request: in the challenge, and for layers further out in the response's extensions.
#[tokio::test]
async fn a_rejection_is_in_the_response() {
    let spy = Spy::default();
    let (token, [required, _]) = logged_in(&spy, "al").await;
    let token = bearer(&token);
    for (headers, expected) in [
        (vec![], Rejection::MissingToken),
        (vec!["Bearer x"], Rejection::InvalidToken),
        (vec![&token, &token], Rejection::InvalidRequest),
    ] {
        let response = look(required.clone(), request(&headers)).await;
        assert_eq!(response.status(), expected.status());
        let rejection = response.extensions().get::<Rejection>();
        assert_eq!(rejection.unwrap().to_string(), expected.to_string());
        assert_eq!(
            response.headers().get(WWW_AUTHENTICATE),
            expected.challenge().as_ref()
        );
    }
}

/// The session in the extensions is a handle: it refreshes, and logs out.
#[tokio::test]
async fn the_session_is_a_handle() {
    let manager = manager(&Spy::default());
    let login = async || manager.set_token("al", Duration::from_secs(60)).await;
    let (mine, other) = (login().await.unwrap(), login().await.unwrap());
    let layer = SessionLayer::new(manager.clone());
    let session = async || {
        let inner = service_fn(async |request: Request<()>| {
            let session = request.extensions().get::<Session<Profile>>().cloned();
            let mut response = Response::new(());
            response.extensions_mut().insert(session);
            Ok::<_, Infallible>(response)
        });
        let response = layer.layer(inner).oneshot(request([bearer(&mine)])).await;
        let mut extensions = response.unwrap().extensions().clone();
        extensions.remove::<Option<Session<Profile>>>().flatten()
    };
    let found = session().await.unwrap();
    assert!(found.refresh(Duration::from_secs(600)).await.unwrap());
    let found = session().await.unwrap();
    assert!(found.user().token_remaining() > Some(Duration::from_secs(500)));

    assert_eq!(found.log_out_others().await.unwrap(), 1);
    let other = manager.check_token(other.expose_secret()).await.unwrap();
    assert!(other.is_none());
    assert!(found.log_out().await.unwrap());
    assert!(!found.log_out().await.unwrap());
    assert!(!found.refresh(None).await.unwrap());
    assert!(session().await.is_none());

    login().await.unwrap();
    assert_eq!(found.log_out_everywhere().await.unwrap(), 1);
    assert!(manager.list_user_tokens("al").await.unwrap().is_empty());
}

/// Has a request judged by a layer, in front of a service that tells what it sees.
async fn look(layer: SessionLayer<Profile>, request: Request<()>) -> Response<Seen> {
    let service = layer.layer(service_fn(see));
    service.oneshot(request).await.expect("an answer")
}

async fn see(request: Request<()>) -> Result<Response<Seen>, Infallible> {
    let extensions = request.extensions();
    let user = extensions.get::<User<Profile>>();
    let session = extensions.get::<Session<Profile>>();
    let authorization = request.headers().get(AUTHORIZATION);
    Ok(Response::new(Seen {
        user: user.map(|user| user.id().to_owned()),
        detail: user.and_then(User::detail).map(|it| it.name.clone()),
        token_id: user.and_then(User::token_id).map(ToString::to_string),
        session: session.map(|session| session.token_id().to_string()),
        other_types: extensions.get::<User<Value>>().is_some()
            || extensions.get::<Session<Value>>().is_some(),
        sensitive: authorization.map(http::HeaderValue::is_sensitive),
    }))
}

fn assert_fault(response: Response<Seen>, kind: ErrorKind) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(RETRY_AFTER));
    assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
    match response.extensions().get::<Rejection>() {
        Some(Rejection::Fault(error)) => assert_eq!(error.kind(), kind),
        other => panic!("{other:?}"),
    }
    assert_eq!(response.into_body(), Seen::default());
}
