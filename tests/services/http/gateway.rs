//! A service whose response body comes from elsewhere, and cannot be made.

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use serde_json::Value;
use tower::{Layer, ServiceBuilder, service_fn};
use tower_bearer_session::{
    Error, ErrorKind, MemoryStore, Rejection, SessionLayer, TokenManager,
    middleware::{OnRejection, ProblemJson, RefusalBody},
};

use super::{Profile, Server, app, builder};

/// A gateway with the layer in front of a client that forwards to `upstream`.
async fn gateway<R>(upstream: &Server, layer: SessionLayer<Profile, R>) -> Server
where
    R: OnRejection<RefusalBody, Body = RefusalBody> + Clone + Send + Sync + 'static,
{
    let upstream = upstream.address;
    let client: Client<HttpConnector, Incoming> =
        Client::builder(TokioExecutor::new()).build_http();
    let forward = service_fn(move |mut request: Request<Incoming>| {
        let uri = format!("http://{upstream}{}", request.uri().path());
        *request.uri_mut() = uri.parse().expect("a URI");
        client.request(request)
    });
    let service = layer.either_body().layer(forward);
    Server::start(async move |listener| {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
    .await
}

/// What is forwarded passes, and what is refused has a body if a hook makes one.
#[tokio::test]
async fn any_body_passes() {
    let manager = builder(MemoryStore::new()).build().unwrap();
    let upstream = Server::axum(app(manager.clone())).await;
    let token = manager.set_token("al", None).await.unwrap();
    let layer = || SessionLayer::new(manager.clone());

    let plain = gateway(&upstream, layer()).await;
    let client = plain.client().with_token(token.expose_secret());
    assert_eq!(client.get("/").await.text().await.unwrap(), "hello al");
    let refused = plain.client().get("/").await;
    assert_eq!(refused.status(), 401);
    assert!(refused.headers().contains_key(WWW_AUTHENTICATE));
    assert_eq!(refused.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(refused.text().await.unwrap(), "");

    let hooked = gateway(&upstream, layer().on_rejection(ProblemJson)).await;
    let client = hooked.client().with_token(token.expose_secret());
    assert_eq!(client.get("/").await.text().await.unwrap(), "hello al");
    let refused = hooked.client().get("/").await;
    assert_eq!(refused.headers()[CONTENT_TYPE], "application/problem+json");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["status"], 401);

    let hook = |rejection: &Rejection, response: Response<RefusalBody>| {
        response.map(|_| RefusalBody::from(format!("no: {rejection}")))
    };
    let hooked = gateway(&upstream, layer().on_rejection(hook)).await;
    let refused = hooked.client().get("/").await.text().await.unwrap();
    assert_eq!(refused, "no: a bearer token is required");
}

/// A layer further in that wraps bodies in a type without `Default` is no obstacle either; errors that a service
/// without axum answers with are those of the layer, and get its looks.
#[tokio::test]
async fn an_error_is_a_response_without_axum() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let answer = service_fn(async |_: Request<()>| {
        let error = Error::new(ErrorKind::SessionLimit, "the user has too many sessions");
        Ok::<Response<String>, Error>(Response::from(error))
    });
    let wrapped = |response: Response<String>| response.map(Wrapped);
    let inner = ServiceBuilder::new().map_response(wrapped).service(answer);
    for (hooked, expected) in [
        (false, "the user has too many sessions"),
        (true, "seen: the user has too many sessions"),
    ] {
        let layer = SessionLayer::new(manager.clone()).optional();
        let hook = move |rejection: &Rejection, response: Response<RefusalBody>| {
            if !hooked {
                return response.map(|_| RefusalBody::from(rejection.to_string()));
            }
            response.map(|_| RefusalBody::from(format!("seen: {rejection}")))
        };
        let service = layer
            .clone()
            .on_rejection(hook)
            .either_body()
            .layer(inner.clone());
        let response = tower::ServiceExt::oneshot(service, Request::new(()))
            .await
            .unwrap();
        assert_eq!(response.status(), 409);
        assert_eq!(
            response.headers()[CONTENT_TYPE],
            "text/plain; charset=utf-8"
        );
        assert!(response.extensions().get::<Rejection>().is_some());
        let (_, body) = response.into_parts();
        let Ok(body) = body.into_refusal() else {
            panic!("the body of the service");
        };
        assert_eq!(Bytes::from(body), expected);
        // Without a hook the text is the same.
        let service = layer.either_body().layer(inner.clone());
        let response = tower::ServiceExt::oneshot(service, Request::new(()))
            .await
            .unwrap();
        let Ok(body) = response.into_body().into_refusal() else {
            panic!("the body of the service");
        };
        assert_eq!(Bytes::from(body), "the user has too many sessions");
    }
}

/// A body that nobody can make.
struct Wrapped(#[expect(dead_code)] String);
