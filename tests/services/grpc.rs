//! A tonic client, with the example `grpc` and with a server whose store fails.

use tonic::{Code, Request, service::Routes, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use std::{net::SocketAddr, time::Duration};

use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio_stream::wrappers::TcpListenerStream;
use tower_bearer_session::{
    ErrorKind, MemoryStore, Session, SessionLayer, TokenManager,
    middleware::{RequirePredicate, RequireRecentAuthentication, RequireScope},
    test_util::{Faults, bearer},
};

use crate::examples::Example;

/// The client sees gRPC codes, and after a logout over gRPC the token is worth nothing.
#[tokio::test]
async fn a_tonic_client_gets_codes() {
    let example = Example::start("grpc", &[]);
    assert!(
        example
            .printed
            .contains("without a token: Err(Unauthenticated)")
    );
    assert!(example.printed.contains("with a token: Serving"));
    let token = example
        .printed
        .split_whitespace()
        .last()
        .expect("the token");
    let endpoint = Endpoint::from_shared(example.bases[0].clone()).unwrap();
    let client = HealthClient::new(endpoint.connect().await.unwrap());
    let check = async |authorization: &[&str], service: &str| {
        let mut request = Request::new(HealthCheckRequest {
            service: service.to_owned(),
        });
        for value in authorization {
            let value = value.parse().unwrap();
            request.metadata_mut().append("authorization", value);
        }
        let answer = client.clone().check(request).await;
        answer
            .map(|answer| answer.into_inner().status())
            .map_err(|status| (status.code(), !status.message().is_empty()))
    };
    let bearer = format!("Bearer {token}");
    let refused = Err((Code::Unauthenticated, true));
    assert_eq!(check(&[], "").await, refused);
    assert_eq!(check(&["Bearer x"], "").await, refused);
    assert_eq!(
        check(&[&bearer, &bearer], "").await,
        Err((Code::InvalidArgument, true))
    );
    assert_eq!(check(&[&bearer], "").await, Ok(ServingStatus::Serving));
    assert_eq!(
        check(&[&bearer], "logout").await,
        Ok(ServingStatus::Serving)
    );
    assert_eq!(check(&[&bearer], "").await, refused);
}

/// A health service under the layer, on a store that may fail.
async fn serve(manager: &TokenManager) -> SocketAddr {
    serve_guarded(manager, |routes| routes).await
}

/// The same, with a guard around the service.
async fn serve_guarded(
    manager: &TokenManager,
    guard: impl FnOnce(axum::Router) -> axum::Router,
) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let routes = guard(Routes::new(health).into_axum_router());
    let server = tonic::transport::Server::builder()
        .layer(SessionLayer::new(manager.clone()).grpc())
        .add_routes(routes.into())
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

/// A store that fails is `UNAVAILABLE`, for streams, too, so that clients try again; and never a verdict on the token.
#[tokio::test]
async fn a_failing_store_is_unavailable() {
    let faults = Faults::new();
    let manager = TokenManager::new(faults.wrap(MemoryStore::new()));
    let authorization = bearer(&manager, "al").await;
    let address = serve(&manager).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let mut codes = async || {
        let request = || {
            let mut request = Request::new(HealthCheckRequest::default());
            let value = authorization.to_str().unwrap().parse().unwrap();
            request.metadata_mut().insert("authorization", value);
            request
        };
        let unary = client.check(request()).await.map(drop);
        let stream = client.watch(request()).await.map(drop);
        [unary, stream].map(|answer| answer.map_or_else(|status| status.code(), |()| Code::Ok))
    };
    assert_eq!(codes().await, [Code::Ok; 2]);
    for (kind, code) in [
        (ErrorKind::Unavailable, Code::Unavailable),
        (ErrorKind::Timeout, Code::Unavailable),
        (ErrorKind::Serialize, Code::Internal),
    ] {
        faults.fail(kind);
        assert_eq!(codes().await, [code; 2]);
    }
    faults.heal();
    assert_eq!(codes().await, [Code::Ok; 2]);
}

/// A guard's refusal is a gRPC status, too.
#[tokio::test]
async fn a_guard_refuses_with_codes() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let authorization = bearer(&manager, "al").await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let is = |answer: bool| RequirePredicate::new(move |_: &Session| answer);
    let scope = RequireScope::new("write").unwrap();
    let recent = RequireRecentAuthentication::new(Duration::ZERO);
    for (address, code) in [
        (
            serve_guarded(&manager, |routes| routes.layer(is(true))).await,
            Code::Ok,
        ),
        (
            serve_guarded(&manager, |routes| routes.layer(is(false))).await,
            Code::PermissionDenied,
        ),
        (
            serve_guarded(&manager, |routes| routes.layer(scope)).await,
            Code::PermissionDenied,
        ),
        (
            serve_guarded(&manager, |routes| routes.layer(recent)).await,
            Code::Unauthenticated,
        ),
    ] {
        assert_eq!(code_of(address, &authorization).await, code);
    }
}

/// The code of a unary call.
async fn code_of(address: SocketAddr, authorization: &http::HeaderValue) -> Code {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let mut request = Request::new(HealthCheckRequest::default());
    let value = authorization.to_str().unwrap().parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let answer = client.check(request).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// On the wire a refusal is *Trailers-Only*: one HEADERS frame that ends the stream, as all gRPC clients expect.
#[tokio::test]
async fn a_refusal_is_trailers_only() {
    let manager = TokenManager::new(MemoryStore::new());
    let address = serve(&manager).await;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Empty<bytes::Bytes>>();
    let call = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc+proto")
        .body(Empty::new())
        .unwrap();
    let response = client.request(call).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "16");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
    // With END_STREAM on the headers, there is nothing to come.
    assert!(http_body::Body::is_end_stream(response.body()));
    let rest = response.into_body().collect().await.unwrap();
    assert!(rest.trailers().is_none());
    assert!(rest.to_bytes().is_empty());
}
