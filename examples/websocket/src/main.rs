//! Streams that end with their session: a WebSocket and server-sent events on axum, with sessions in memory.
//!
//! Run `cargo run -p example-websocket` and open the address that it prints in a browser. `PORT` sets the port.

use std::{convert::Infallible, env, pin::pin, time::Duration};

use axum::{
    Router,
    extract::{
        Path, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code::POLICY},
    },
    http::{
        HeaderMap, StatusCode,
        header::{HOST, ORIGIN},
    },
    response::{
        Html, IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use tower_bearer_session::{
    Error, MemoryStore, Session, SessionLayer, TokenManager, TokenOptions, User,
    middleware::{SameSite, SessionCookie, TokenSource},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager: TokenManager = TokenManager::builder(MemoryStore::new())
        // How soon a stream ends after a logout.
        .revocation_poll(Duration::from_secs(1))
        .build()?;
    // Chromium also accepts it from this machine without HTTPS.
    let cookie = SessionCookie::new("session")?.same_site(SameSite::Strict);
    let layer = SessionLayer::new(manager)
        .optional()
        .token_sources([
            TokenSource::authorization(),
            // Browsers do not let a page set headers for a WebSocket or server-sent events.
            TokenSource::websocket_protocol(),
            cookie.source(),
        ])
        // The browser adds the cookie to requests that already have a token.
        .first_source_decides();
    let app = Router::new()
        .route("/", get(async || Html(include_str!("websocket.html"))))
        .route("/login/{user}", post(log_in))
        .route("/logout", post(log_out))
        .route("/echo", get(echo))
        .route("/clock", get(clock))
        .layer(layer)
        .with_state(cookie);

    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let base = format!("http://{}", listener.local_addr()?);
    println!("listening on {base}; open it in a browser, or: curl -X POST {base}/login/alice\n");
    axum::serve(listener, app).await?;
    Ok(())
}

/// Logs in any user: responds with the token, and also sets it as a cookie.
async fn log_in(
    State(cookie): State<SessionCookie>,
    manager: TokenManager,
    Path(user): Path<String>,
) -> Result<impl IntoResponse, Error> {
    // Check the password here.
    let issued = manager.set_token_with(&user, TokenOptions::new()).await?;
    Ok((cookie.set(&issued), issued))
}

async fn log_out(
    State(cookie): State<SessionCookie>,
    session: Session,
) -> Result<impl IntoResponse, Error> {
    session.log_out().await?;
    Ok(cookie.clear())
}

async fn echo(session: Session, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if !is_same_origin(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    upgrade.on_upgrade(async |socket| talk(session, socket).await)
}

/// Whether a WebSocket request comes from a page of this site, or from a client that is not a browser.
///
/// Pages of other sites can also open a WebSocket, and the browser may add the cookie. Clients that are not browsers
/// send no `Origin`.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST).unwrap_or_default();
    match headers.get(ORIGIN) {
        Some(_) => text(ORIGIN) == Some(&format!("http://{host}")),
        None => true,
    }
}

/// Echoes messages until the client disconnects or the session ends.
async fn talk(session: Session, mut socket: WebSocket) {
    let mut revoked = pin!(session.revoked());
    loop {
        tokio::select! {
            () = &mut revoked => {
                let reason = "logged out".into();
                let bye = CloseFrame { code: POLICY, reason };
                let _ = socket.send(Message::Close(Some(bye))).await;
                return;
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let answer = format!("{}: {text}", session.user().id());
                    if socket.send(Message::Text(answer.into())).await.is_err() {
                        return;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

/// Sends events until the session ends.
async fn clock(session: Session, user: User) -> impl IntoResponse {
    let ticks = stream::unfold(0_u64, async |tick| {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Some((tick, tick + 1))
    });
    let events = ticks.map(move |tick| {
        let text = format!("{}: {tick}", user.id());
        Ok::<_, Infallible>(Event::default().data(text))
    });
    Sse::new(events.take_until(session.revoked())).keep_alive(KeepAlive::default())
}
