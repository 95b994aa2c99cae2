//! Two instances of a service that share their sessions through one MySQL server.
//!
//! Log in at one instance, use the session at the other, and log out at either. The users are in a table beside the
//! sessions. Run `MYSQL_URL=mysql://root@127.0.0.1/sessions cargo run -p example-mysql` and try the curl lines that it
//! prints.

use std::env;

use axum::{
    Router,
    extract::Path,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use sqlx::MySqlPool;
use tokio::net::TcpListener;
use tower_bearer_session::{Error, MySqlStore, Session, SessionLayer, Token, TokenManager, User};

#[derive(Serialize, Deserialize)]
struct Profile {
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url =
        env::var("MYSQL_URL").unwrap_or_else(|_| "mysql://root@127.0.0.1/sessions".to_owned());
    let pool = MySqlPool::connect(&url).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS people (id VARCHAR(255) PRIMARY KEY, name TEXT NOT NULL)",
    )
    .execute(&pool)
    .await?;
    sqlx::query("INSERT IGNORE INTO people VALUES ('alice', 'Alice Liddell')")
        .execute(&pool)
        .await?;
    let (one, at_one) = instance(&url, &pool).await?;
    let (two, at_two) = instance(&url, &pool).await?;
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
    pool: &MySqlPool,
) -> Result<(impl Future<Output = std::io::Result<()>>, String), Box<dyn std::error::Error>> {
    let store = MySqlStore::connect(url).await?;
    store.migrate().await?;
    let pool = pool.clone();
    let manager = TokenManager::builder(store)
        .single_mode()
        .load_user(move |id: String| {
            // A pool is a cheap handle, so each load gets a clone.
            let pool = pool.clone();
            async move {
                let query = sqlx::query_scalar("SELECT name FROM people WHERE id = ?");
                let name = query.bind(id).fetch_optional(&pool).await?;
                Ok::<_, sqlx::Error>(name.map(|name| Profile { name }))
            }
        })
        .build()?;
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
async fn log_in(manager: TokenManager<Profile>, Path(user): Path<String>) -> Result<Token, Error> {
    manager.set_token(&user, None).await
}

async fn me(user: User<Profile>) -> String {
    let name = user.detail().map_or("unknown", |profile| &profile.name);
    format!("you are {}, {name}\n", user.id())
}

async fn log_out(session: Session<Profile>) -> Result<&'static str, Error> {
    session.log_out().await?;
    Ok("bye\n")
}
