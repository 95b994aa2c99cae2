//! Two instances of a service that share their sessions through one Redis server.
//!
//! Log in at one instance, use the session at the other, and log out at either. Run
//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --example redis` and try the curl lines that it prints.

use std::env;

use axum::{
    Router,
    extract::Path,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tower_bearer_session::{Error, RedisStore, Session, SessionLayer, Token, TokenManager, User};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    let (one, at_one) = instance(&url).await?;
    let (two, at_two) = instance(&url).await?;
    println!(
        r#"two instances, {at_one} and {at_two}; try:

TOKEN=$(curl -s -X POST {at_one}/login/alice)
curl -s {at_two}/me -H "Authorization: Bearer $TOKEN"
curl -s -X POST {at_two}/logout -H "Authorization: Bearer $TOKEN"
curl -i {at_one}/me -H "Authorization: Bearer $TOKEN"
"#
    );
    tokio::try_join!(one, two)?;
    Ok(())
}

/// Starts an instance with its own store handle on a free port.
async fn instance(
    url: &str,
) -> Result<(impl Future<Output = std::io::Result<()>>, String), Box<dyn std::error::Error>> {
    let store = RedisStore::connect(url).await?;
    let manager: TokenManager = TokenManager::builder(store).single_mode().build()?;
    let app = Router::new()
        .route("/me", get(me))
        .route("/logout", post(log_out))
        .route("/login/{user}", post(log_in))
        .layer(SessionLayer::new(manager).optional());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    Ok((axum::serve(listener, app).into_future(), base))
}

/// Logs in any user; a real service checks a password here.
async fn log_in(manager: TokenManager, Path(user): Path<String>) -> Result<Token, Error> {
    manager.set_token(&user, None).await
}

async fn me(user: User) -> String {
    format!("you are {}\n", user.id())
}

async fn log_out(session: Session) -> Result<&'static str, Error> {
    session.log_out().await?;
    Ok("bye\n")
}
