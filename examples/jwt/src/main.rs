//! JWTs: a service with a store that logs users in, and one without a store that verifies tokens with the published
//! keys.
//!
//! Run `cargo run -p example-jwt` and try the curl lines that it prints.

use std::{error::Error as StdError, time::Duration};

use axum::{
    Router,
    extract::Path,
    http::header::CONTENT_TYPE,
    routing::{get, post},
};
use serde_json::json;
use tokio::net::TcpListener;
use tower_bearer_session::{
    Error, MemoryStore, Session, SessionLayer, Token, TokenManager, TokenOptions, User,
    jwt::{JwtConfig, JwtVerifier, SigningKey, VerifiedClaims},
    middleware::{JwtLayer, RequireScope},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    // A real service reads its key from its secret storage, the same key in all instances.
    let pem = rcgen::KeyPair::generate()?.serialize_pem();
    let config = JwtConfig::new(SigningKey::es256("2026-11", &pem)?)
        .issuer("https://login.example.org")
        .audience("shop")
        // What the service without a store wants to know, from what the login has noted.
        .claims(|session| Ok(json!({ "tenant": session.metadata().get("tenant") })))
        // How long the service without a store may accept a token after a logout.
        .max_lifetime(Duration::from_secs(15 * 60));
    let jwk_set = config.jwk_set();

    let manager: TokenManager = TokenManager::builder(MemoryStore::new())
        .jwt(config)
        .build()?;
    let keys = jwk_set.clone();
    let login = Router::new()
        .route("/me", get(me))
        .route("/logout", post(log_out))
        .route("/login/{user}", post(log_in))
        .layer(SessionLayer::new(manager).optional())
        .route(
            "/.well-known/jwks.json",
            get(async move || ([(CONTENT_TYPE, "application/jwk-set+json")], keys)),
        );

    // A real service fetches them at its start: a verifier keeps its keys.
    let verifier = JwtVerifier::from_jwk_set(&jwk_set)?
        .issuer("https://login.example.org")
        .audience("shop")
        .build()?;
    for key in verifier.ignored_keys() {
        eprintln!("ignored a key of the JWK Set: {key}");
    }
    let gateway = Router::new()
        .route("/orders", post(order))
        .route_layer(RequireScope::new("orders:write")?)
        .route("/me", get(me))
        .route("/claims", get(claims))
        .route_layer(JwtLayer::new(verifier));

    let listeners = [
        TcpListener::bind("127.0.0.1:0").await?,
        TcpListener::bind("127.0.0.1:0").await?,
    ];
    let [at_login, at_gateway] = [&listeners[0], &listeners[1]].map(|listener| {
        listener
            .local_addr()
            .map(|address| format!("http://{address}"))
    });
    let (at_login, at_gateway) = (at_login?, at_gateway?);
    println!(
        r#"with a store at {at_login}, without one at {at_gateway}; try:

TOKEN=$(curl -s -X POST {at_login}/login/alice)
curl -s {at_login}/me -H "Authorization: Bearer $TOKEN"
curl -s {at_gateway}/me -H "Authorization: Bearer $TOKEN"
curl -s {at_gateway}/claims -H "Authorization: Bearer $TOKEN"
curl -s -X POST {at_gateway}/orders -H "Authorization: Bearer $TOKEN"
GUEST=$(curl -s -X POST {at_login}/login/guest)
curl -i -X POST {at_gateway}/orders -H "Authorization: Bearer $GUEST"
curl -s -X POST {at_login}/logout -H "Authorization: Bearer $TOKEN"
curl -i {at_login}/me -H "Authorization: Bearer $TOKEN"
curl -i {at_gateway}/me -H "Authorization: Bearer $TOKEN"  # until the token expires
curl -s {at_login}/.well-known/jwks.json
"#
    );
    let [one, two] = listeners;
    tokio::try_join!(
        axum::serve(one, login).into_future(),
        axum::serve(two, gateway).into_future()
    )?;
    Ok(())
}

/// Logs in any user, and lets all but guests order; a real service checks a password here.
async fn log_in(manager: TokenManager, Path(user): Path<String>) -> Result<Token, Error> {
    let scopes: &[&str] = if user == "guest" {
        &[]
    } else {
        &["orders:write"]
    };
    let options = TokenOptions::new()
        .metadata("tenant", "acme")
        .scopes(scopes.iter().copied());
    Ok(manager.set_token_with(&user, options).await?.token)
}

/// This handler works under both layers.
async fn me(user: User) -> String {
    format!("you are {}\n", user.id())
}

/// Shows the claims of the token, which only the layer without a store provides.
async fn claims(claims: VerifiedClaims) -> String {
    format!("token {:?} of {:?}\n", claims.jti(), claims.issuer())
}

/// Only tokens with the scope `orders:write` get here.
async fn order(claims: VerifiedClaims) -> String {
    let tenant = claims
        .other()
        .get("tenant")
        .and_then(|tenant| tenant.as_str());
    format!("ordered for {}\n", tenant.unwrap_or("nobody"))
}

async fn log_out(session: Session) -> Result<&'static str, Error> {
    session.log_out().await?;
    Ok("bye\n")
}
