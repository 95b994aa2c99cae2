//! The layer on a plain hyper 1 service, without axum.
//!
//! The handler reads the user from the request's extensions, and refusals have a body of type
//! `application/problem+json`. Run `cargo run --example hyper` and try the curl line that it prints. `PORT` sets the
//! port.

use std::{convert::Infallible, env};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::net::TcpListener;
use tower::{Layer, service_fn};
use tower_bearer_session::{
    MemoryStore, SessionLayer, TokenManager, User, middleware::ProblemJson,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let token = manager.set_token("alice", None).await?;
    let service = SessionLayer::new(manager)
        .on_rejection(ProblemJson)
        .layer(service_fn(hello));

    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!(
        "listening; try:\n\ncurl -i http://{} -H 'Authorization: Bearer {}'",
        listener.local_addr()?,
        token.expose_secret()
    );
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let user: &User = request
        .extensions()
        .get()
        .expect("the layer requires a user");
    Ok(Response::new(format!("hello {}\n", user.id()).into()))
}
