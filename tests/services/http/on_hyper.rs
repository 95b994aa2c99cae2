use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, WWW_AUTHENTICATE},
    server::conn::http1,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::Value;
use tokio::time::sleep;
use tower::{Layer, Service, service_fn};
use tower_bearer_session::{
    MemoryStore, Session, SessionLayer, TokenManager, TokenOptions, User,
    middleware::{RequirePredicate, RequireRecentAuthentication, RequireScope},
};

use super::{Profile, Server, builder};

/// The whole way without axum: log in, be known, log out through the handle in the extensions.
#[tokio::test]
async fn a_login_lasts_until_the_logout() {
    let server = server(SessionLayer::optional).await;
    let stranger = server.client();
    assert_eq!(stranger.get("/").await.text().await.unwrap(), "stranger");
    let token = stranger.post("/login", &Value::Null).await;
    let client = stranger.with_token(token.text().await.unwrap());
    assert_eq!(client.get("/").await.text().await.unwrap(), "al AL");
    assert_eq!(client.post("/logout", &Value::Null).await.status(), 200);
    assert_eq!(client.get("/").await.text().await.unwrap(), "stranger");
    assert_eq!(client.post("/logout", &Value::Null).await.status(), 404);
}

/// A required layer refuses before the service, with an empty body and a challenge.
#[tokio::test]
async fn strangers_are_refused() {
    let server = server(|layer| layer).await;
    for client in [server.client(), server.client().with_token("x")] {
        let refused = client.get("/").await;
        assert_eq!(refused.status(), 401);
        assert!(refused.headers().contains_key(WWW_AUTHENTICATE));
        assert_eq!(refused.text().await.unwrap(), "");
    }
}

/// Many requests on many connections at once, each with the right user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_keep_their_users_apart() {
    let manager = builder(MemoryStore::new()).build().unwrap();
    let server = serve(SessionLayer::new(manager.clone()), manager.clone()).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let user = format!("u{number}");
        let token = manager.set_token(&user, None).await.unwrap();
        let client = server.client().with_token(token.expose_secret());
        clients.push(tokio::spawn(async move {
            for _ in 0..20 {
                let text = client.get("/").await.text().await.unwrap();
                assert_eq!(text, format!("{user} {}", user.to_uppercase()));
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
}

/// Guards need no axum either: a missing scope, an old login and a predicate are refused like elsewhere.
#[tokio::test]
async fn guards_refuse_sessions() {
    let manager = builder(MemoryStore::new()).build().unwrap();
    let layer = SessionLayer::new(manager.clone());
    let scope = RequireScope::new("orders").unwrap();
    let scope = scope.user_type::<Profile>();
    let recent = RequireRecentAuthentication::new(Duration::ZERO).user_type::<Profile>();
    let predicate = RequirePredicate::new(|session: &Session<Profile>| session.user().id() == "bo");
    let answer = service_fn(async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let scope = serve_with(layer.clone().layer(scope.layer(answer))).await;
    let recent = serve_with(layer.clone().layer(recent.layer(answer))).await;
    let predicate = serve_with(layer.layer(predicate.layer(answer))).await;
    let options = TokenOptions::new().scopes(["orders"]);
    let al = manager.set_token("al", None).await.unwrap();
    let bo = manager.set_token_with("bo", options).await.unwrap().token;
    // So that the login is older than nothing at all.
    sleep(Duration::from_millis(5)).await;
    for (server, status, error, bo_status) in [
        (&scope, 403, Some(r#"error="insufficient_scope""#), 200),
        (
            &recent,
            401,
            Some(r#"error="insufficient_user_authentication""#),
            401,
        ),
        (&predicate, 403, None, 200),
    ] {
        let refused = server
            .client()
            .with_token(al.expose_secret())
            .get("/")
            .await;
        assert_eq!(refused.status(), status);
        let challenge = refused.headers().get(WWW_AUTHENTICATE);
        let challenge = challenge.map(|value| value.to_str().unwrap());
        match error {
            Some(error) => assert!(challenge.unwrap().contains(error), "{challenge:?}"),
            None => assert_eq!(challenge, None),
        }
        assert_eq!(refused.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(refused.text().await.unwrap(), "");
        let answered = server
            .client()
            .with_token(bo.expose_secret())
            .get("/")
            .await;
        assert_eq!(answered.status(), bo_status);
        assert_eq!(server.client().get("/").await.status(), 401);
    }
}

async fn server(configure: impl FnOnce(SessionLayer<Profile>) -> SessionLayer<Profile>) -> Server {
    let manager = builder(MemoryStore::new()).build();
    let manager = manager.expect("a valid configuration");
    serve(configure(SessionLayer::new(manager.clone())), manager).await
}

/// Serves with hyper alone.
async fn serve(layer: SessionLayer<Profile>, manager: TokenManager<Profile>) -> Server {
    serve_with(layer.layer(service_fn(move |request| answer(manager.clone(), request)))).await
}

async fn serve_with<S>(service: S) -> Server
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    Server::start(async move |listener| {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
    .await
}

async fn answer(
    manager: TokenManager<Profile>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    body.collect().await.expect("a whole body");
    let user = parts.extensions.get::<User<Profile>>();
    let session = parts.extensions.get::<Session<Profile>>();
    let mut response = Response::default();
    let text = match (parts.method, parts.uri.path()) {
        (Method::POST, "/login") => {
            let token = manager.set_token("al", None).await.expect("a login");
            token.expose_secret().to_owned()
        }
        (Method::POST, "/logout") => {
            let done = match session {
                Some(session) => session.log_out().await.expect("a logout"),
                None => false,
            };
            if !done {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            String::new()
        }
        _ => match user.and_then(|user| Some((user.id(), user.detail()?))) {
            Some((id, detail)) => format!("{id} {}", detail.name),
            None => "stranger".to_owned(),
        },
    };
    *response.body_mut() = text.into();
    Ok(response)
}
