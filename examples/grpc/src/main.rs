//! The layer on a tonic server: with `.grpc()`, refused gRPC calls get a gRPC status.
//!
//! Run `cargo run -p example-grpc`. `PORT` sets the port. The service is tonic's health service, so that no code has to
//! be generated.

use std::env;

use tokio_stream::{Empty, wrappers::TcpListenerStream};
use tonic::{
    Code, Request, Response, Status,
    transport::{Endpoint, Server},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower_bearer_session::{Error, MemoryStore, Rejection, Session, SessionLayer, TokenManager};

struct Checkup;

#[tonic::async_trait]
impl Health for Checkup {
    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        // The gRPC request has the extensions of the HTTP request.
        let session: &Session = request
            .extensions()
            .get()
            .ok_or_else(|| Status::internal("no layer"))?;
        // A call for the service "logout" ends the session.
        if request.get_ref().service == "logout" {
            session.log_out().await.map_err(status)?;
        }
        Ok(Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

/// The status for an error: `UNAVAILABLE` for a fault, so that clients try again.
fn status(error: Error) -> Status {
    let rejection = Rejection::from(error);
    Status::new(
        Code::from(i32::from(rejection.grpc_status())),
        rejection.to_string(),
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let token = manager.set_token("alice", None).await?;

    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let base = format!("http://{}", listener.local_addr()?);
    let server = Server::builder()
        .layer(SessionLayer::new(manager).grpc())
        .add_service(HealthServer::new(Checkup))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);

    let channel = Endpoint::from_shared(base.clone())?.connect().await?;
    let mut client = HealthClient::new(channel);
    let refused = client.check(HealthCheckRequest::default()).await;
    println!(
        "without a token: {:?}",
        refused.map_err(|status| status.code())
    );
    let mut request = Request::new(HealthCheckRequest::default());
    let bearer = format!("Bearer {}", token.expose_secret());
    request
        .metadata_mut()
        .insert("authorization", bearer.parse()?);
    let answer = client.check(request).await?.into_inner();
    println!("with a token: {:?}", answer.status());

    println!(
        "listening on {base}; the token is {}\n",
        token.expose_secret()
    );
    server.await??;
    Ok(())
}
