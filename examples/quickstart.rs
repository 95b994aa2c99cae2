//! Login, current user, list and revocation of sessions, and logout on axum, with sessions in memory.
//!
//! Run `cargo run --example quickstart` and try the curl lines that it prints. `PORT` sets the port.

use std::{collections::HashMap, env};

use axum::{
    Json, Router,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_bearer_session::{
    Error, MemoryStore, Session, SessionLayer, TokenId, TokenManager, TokenOptions, User,
};

/// The application's data of a user.
#[derive(Serialize, Deserialize)]
struct Profile {
    name: String,
}

#[derive(Deserialize)]
struct Credentials {
    user: String,
    password: String,
    device: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = TokenManager::builder(MemoryStore::new())
        .load_user(load_profile)
        .build()?;

    let app = Router::new()
        .route("/me", get(me))
        .route("/sessions", get(list_sessions).delete(log_out_everywhere))
        .route("/sessions/{id}", delete(revoke))
        .route("/logout", post(log_out))
        // The routes above need a live token. (With `layer`, unknown paths would need one, too: 401 instead of 404.)
        .route_layer(SessionLayer::new(manager.clone()))
        // The login does not need a token.
        .route(
            "/login",
            post(log_in).layer(SessionLayer::new(manager).optional()),
        );

    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let base = format!("http://{}", listener.local_addr()?);
    println!(
        r#"listening on {base}; try:

TOKEN=$(curl -s {base}/login --json '{{"user":"alice","password":"wonderland","device":"laptop"}}')
OTHER=$(curl -s {base}/login --json '{{"user":"alice","password":"wonderland","device":"phone"}}')
curl -i {base}/me
curl {base}/me -H "Authorization: Bearer $TOKEN"
curl {base}/sessions -H "Authorization: Bearer $TOKEN"
curl -i -X DELETE {base}/sessions/PUT-AN-ID-HERE -H "Authorization: Bearer $TOKEN"
curl -X POST {base}/logout -H "Authorization: Bearer $OTHER"
curl -X DELETE {base}/sessions -H "Authorization: Bearer $TOKEN"
"#
    );
    axum::serve(listener, app).await?;
    Ok(())
}

/// Checks the password, and responds with a new token.
async fn log_in(
    manager: TokenManager<Profile>,
    Json(credentials): Json<Credentials>,
) -> Result<Response, Error> {
    if password_of(&credentials.user) != Some(&credentials.password) {
        return Ok((StatusCode::FORBIDDEN, "wrong user or password").into_response());
    }
    let device = credentials.device.unwrap_or_else(|| "unknown".to_owned());
    let options = TokenOptions::new().metadata("device", device);
    let issued = manager.set_token_with(&credentials.user, options).await?;
    Ok(issued.token.into_response())
}

async fn me(user: User<Profile>) -> Json<Value> {
    let name = user.detail().map(|profile| &profile.name);
    let seconds = user.token_remaining().map(|remaining| remaining.as_secs());
    Json(json!({ "id": user.id(), "name": name, "seconds_left": seconds }))
}

async fn list_sessions(session: Session<Profile>) -> Result<Json<Value>, Error> {
    let user_id = session.user().id();
    let sessions = session.manager().list_user_tokens(user_id).await?;
    Ok(Json(json!({ "this": session.token_id(), "all": sessions })))
}

async fn revoke(session: Session<Profile>, Path(id): Path<TokenId>) -> Result<StatusCode, Error> {
    let user_id = session.user().id();
    Ok(
        match session.manager().delete_user_token(user_id, &id).await? {
            true => StatusCode::NO_CONTENT,
            false => StatusCode::NOT_FOUND,
        },
    )
}

async fn log_out(session: Session<Profile>) -> Result<&'static str, Error> {
    session.log_out().await?;
    Ok("bye\n")
}

async fn log_out_everywhere(session: Session<Profile>) -> Result<String, Error> {
    let count = session.log_out_everywhere().await?;
    Ok(format!("{count} sessions ended\n"))
}

/// Stands for a database query. It runs once per user; then the result is cached.
async fn load_profile(id: String) -> Result<Option<Profile>, std::io::Error> {
    let names = HashMap::from([("alice", "Alice Liddell"), ("bob", "Bob the Builder")]);
    Ok(names.get(&*id).map(|&name| Profile {
        name: name.to_owned(),
    }))
}

/// Stands for a table of password hashes.
fn password_of(user: &str) -> Option<&'static str> {
    match user {
        "alice" => Some("wonderland"),
        "bob" => Some("canwefixit"),
        _ => None,
    }
}
