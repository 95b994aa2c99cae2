//! The accounts of a service, on axum: login by cookie and by bearer token, a list of devices, step-up and roles.
//!
//! Run `cargo run -p example-account` and open the address that it prints in a browser. `PORT` sets the port,
//! `RECENT_SECONDS` how recent a login must be to close the account.

use std::{env, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, FromRef, Path, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_bearer_session::{
    Error, IssuedToken, MemoryStore, ReplaceOptions, Replacement, Session, SessionLayer, TokenId,
    TokenManager, TokenOptions, User,
    middleware::{
        RequirePredicate, RequireRecentAuthentication, RequireScope, RequireSession, SessionCookie,
        TokenSource,
    },
};
use tower_http::csrf::CsrfLayer;

use accounts::{Accounts, Profile};

mod accounts;

/// What the handlers share.
#[derive(Clone, FromRef)]
struct App {
    accounts: Arc<Accounts>,
    cookie: SessionCookie,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = env::var("RECENT_SECONDS").map_or(Ok(300), |seconds| seconds.parse())?;
    let accounts = Arc::new(Accounts::new());
    let users = Arc::clone(&accounts);
    let manager = TokenManager::builder(MemoryStore::new())
        .load_user(move |id: String| {
            let profile = users.profile(&id);
            async { Ok::<_, std::io::Error>(profile) }
        })
        .max_lifetime(Duration::from_secs(30 * 24 * 3600))
        .build()?;
    let app = App {
        accounts,
        cookie: SessionCookie::new("account")?,
    };
    let app = router(app, manager, Duration::from_secs(seconds))?;

    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let base = format!("http://{}", listener.local_addr()?);
    println!(
        r#"listening on {base}; open it in a browser, or:

TOKEN=$(curl -s {base}/token --json '{{"user":"alice","password":"wonderland","scopes":["orders:write"]}}' | sed 's/.*access_token":"\([^"]*\).*/\1/')
curl {base}/devices -H "Authorization: Bearer $TOKEN"
"#
    );
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).await?;
    Ok(())
}

fn router(app: App, manager: TokenManager<Profile>, recent: Duration) -> Result<Router, Error> {
    let sessions = SessionLayer::new(manager)
        .optional()
        .token_sources([TokenSource::authorization(), app.cookie.source()])
        .refresh_below(Duration::from_secs(24 * 3600))
        .note_last_seen(Duration::from_secs(60));
    let account = Router::new()
        .route("/account", delete(close_account))
        .route_layer(RequireRecentAuthentication::new(recent).user_type::<Profile>());
    let orders = Router::new()
        .route("/orders", post(async || "ordered\n"))
        .route_layer(RequireScope::new("orders:write")?.user_type::<Profile>());
    let admin = Router::new()
        .route("/admin", get(async || "all is well\n"))
        .route_layer(RequirePredicate::new(is_admin));
    let devices = Router::new()
        .route("/me", get(me))
        .route("/devices", get(list_devices).delete(log_out_others))
        .route("/devices/{id}", delete(log_out_device))
        .route("/password", post(change_password))
        .route("/authenticate", post(authenticate))
        .route("/logout", post(log_out))
        .route("/logout-everywhere", post(log_out_everywhere))
        .route_layer(RequireSession::new().user_type::<Profile>());
    Ok(Router::new()
        .merge(account)
        .merge(orders)
        .merge(admin)
        .merge(devices)
        .route("/", get(async || Html(include_str!("account.html"))))
        .route("/login", post(log_in))
        .route("/token", post(issue_token))
        .layer(from_fn_with_state(CsrfLayer::new(), check_origin))
        .layer(sessions)
        .with_state(app))
}

fn is_admin(session: &Session<Profile>) -> bool {
    let profile = session.user().detail();
    profile.is_some_and(|profile| profile.is_admin)
}

/// Checks the origin of all requests except those with a token in `Authorization`, which browsers never add by themselves.
async fn check_origin(State(csrf): State<CsrfLayer>, request: Request, next: Next) -> Response {
    let session = request.extensions().get::<Session<Profile>>();
    if session.is_some_and(|session| *session.source() == TokenSource::authorization()) {
        return next.run(request).await;
    }
    match csrf.layer(next).oneshot(request).await {
        Ok(response) => response,
        Err(impossible) => match impossible {},
    }
}

#[derive(Deserialize)]
struct Credentials {
    user: String,
    password: String,
    #[serde(default)]
    scopes: Vec<String>,
}

/// Checks the password and starts a session; `None` if the password is wrong.
async fn start_session(
    app: &App,
    manager: &TokenManager<Profile>,
    credentials: Credentials,
    headers: &HeaderMap,
    client: SocketAddr,
) -> Result<Option<IssuedToken>, Error> {
    let Credentials {
        user,
        password,
        scopes,
    } = credentials;
    if !app.accounts.check(&user, &password) {
        return Ok(None);
    }
    // Behind a proxy it would be `forwarded_address`.
    let options = TokenOptions::new().user_agent(headers).address(client.ip());
    // Everybody may order; a client asks for what it needs.
    let scopes = scopes.into_iter().filter(|scope| scope == "orders:write");
    let issued = manager
        .set_token_with(&user, options.scopes(scopes))
        .await?;
    Ok(Some(issued))
}

fn wrong_password() -> Response {
    (StatusCode::FORBIDDEN, "wrong user or password\n").into_response()
}

/// A login of the page: the token is in a cookie, which no script can read.
async fn log_in(
    State(app): State<App>,
    manager: TokenManager<Profile>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> Result<Response, Error> {
    let issued = start_session(&app, &manager, credentials, &headers, client).await?;
    Ok(match issued {
        Some(issued) => (app.cookie.set(&issued), StatusCode::NO_CONTENT).into_response(),
        None => wrong_password(),
    })
}

/// A login of an app or a script, which sends the token in `Authorization`.
async fn issue_token(
    State(app): State<App>,
    manager: TokenManager<Profile>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> Result<Response, Error> {
    let issued = start_session(&app, &manager, credentials, &headers, client).await?;
    Ok(issued.map_or_else(wrong_password, IntoResponse::into_response))
}

async fn me(user: User<Profile>, session: Session<Profile>) -> Json<Value> {
    Json(json!({
        "id": user.id(),
        "name": user.detail().map(|profile| &profile.name),
        "scope": session.scopes(),
        "seconds_since_login": session.authentication_age().as_secs(),
    }))
}

async fn list_devices(session: Session<Profile>) -> Result<Json<Value>, Error> {
    let user_id = session.user().id();
    let devices = session.manager().list_user_tokens(user_id).await?;
    Ok(Json(json!({ "this": session.token_id(), "all": devices })))
}

async fn log_out_device(
    session: Session<Profile>,
    Path(id): Path<TokenId>,
) -> Result<StatusCode, Error> {
    let (manager, user_id) = (session.manager(), session.user().id());
    Ok(match manager.delete_user_token(user_id, &id).await? {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::NOT_FOUND,
    })
}

async fn log_out_others(session: Session<Profile>) -> Result<Json<u64>, Error> {
    session.log_out_others().await.map(Json)
}

#[derive(Deserialize)]
struct Passwords {
    old: String,
    new: String,
}

/// Sets another password. This device gets a new token, and all others are logged out, in one step.
async fn change_password(
    State(app): State<App>,
    session: Session<Profile>,
    Json(passwords): Json<Passwords>,
) -> Result<Response, Error> {
    let Passwords { old, new } = passwords;
    let id = session.user().id();
    if !app.accounts.change_password(id, &old, new) {
        return Ok(wrong_password());
    }
    let options = ReplaceOptions::new().authenticated().end_others();
    let response = replace_token(&app, &session, options).await?;
    if !response.status().is_success() {
        // Somebody else has the new token of this session: another tab, or a thief.
        session.log_out_everywhere().await?;
        return Ok((app.cookie.clear(), StatusCode::UNAUTHORIZED).into_response());
    }
    Ok(response)
}

#[derive(Deserialize)]
struct Password {
    password: String,
}

/// The step before what asks for a recent login.
async fn authenticate(
    State(app): State<App>,
    session: Session<Profile>,
    Json(Password { password }): Json<Password>,
) -> Result<Response, Error> {
    if !app.accounts.check(session.user().id(), &password) {
        return Ok(wrong_password());
    }
    let options = ReplaceOptions::new().authenticated();
    replace_token(&app, &session, options).await
}

/// Gives the client a new token, by the way that the old one came.
async fn replace_token(
    app: &App,
    session: &Session<Profile>,
    options: ReplaceOptions,
) -> Result<Response, Error> {
    Ok(match session.replace_token(options).await? {
        Replacement::Replaced { issued, .. } if session.source().is_cookie() => {
            (app.cookie.set(&issued), StatusCode::NO_CONTENT).into_response()
        }
        Replacement::Replaced { issued, .. } => issued.into_response(),
        // Another request of this client has the new token.
        Replacement::AlreadyReplaced => StatusCode::CONFLICT.into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    })
}

async fn log_out(
    State(app): State<App>,
    session: Session<Profile>,
) -> Result<impl IntoResponse, Error> {
    session.log_out().await?;
    Ok((app.cookie.clear(), StatusCode::NO_CONTENT))
}

async fn log_out_everywhere(
    State(app): State<App>,
    session: Session<Profile>,
) -> Result<impl IntoResponse, Error> {
    let count = session.log_out_everywhere().await?;
    Ok((app.cookie.clear(), Json(count)))
}

async fn close_account(
    State(app): State<App>,
    session: Session<Profile>,
) -> Result<impl IntoResponse, Error> {
    let (manager, id) = (session.manager(), session.user().id());
    app.accounts.close(id);
    manager.delete_user_tokens(id).await?;
    manager.delete_user(id).await?;
    Ok((app.cookie.clear(), StatusCode::NO_CONTENT))
}
