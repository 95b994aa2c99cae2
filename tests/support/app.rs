//! A service of its own, and clients of it.

use std::{fmt::Display, net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, Path, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tower_bearer_session::{
    Error, IssuedToken, Session, SessionLayer, SessionStore, TokenId, TokenManager,
    TokenManagerBuilder, TokenOptions, User,
};

/// What the application knows of its users.
#[derive(Serialize, Deserialize)]
pub struct Profile {
    pub name: String,
}

/// A manager's configuration on a store; its users are all known.
pub fn builder(store: impl SessionStore) -> TokenManagerBuilder<Profile> {
    TokenManager::builder(store).load_user(async |id: String| {
        let name = id.to_uppercase();
        Ok::<_, Error>(Some(Profile { name }))
    })
}

/// An application with a state of its own, public and private routes.
pub fn app(manager: TokenManager<Profile>) -> Router {
    let layer = SessionLayer::new(manager);
    let private = Router::new()
        .route("/me", get(me))
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", delete(revoke))
        .route("/refresh", post(refresh))
        .route("/logout", post(logout))
        .route("/logout/others", post(logout_others))
        .route("/logout/everywhere", post(logout_everywhere))
        .layer(layer.clone());
    let public = Router::new()
        .route("/", get(home))
        .route("/login", post(login))
        .route("/strict/session", get(me))
        .route("/strict/user", get(name))
        .layer(layer.optional());
    private.merge(public).with_state(App { greeting: "hello" })
}

#[derive(Clone)]
struct App {
    greeting: &'static str,
}

impl FromRef<App> for &'static str {
    fn from_ref(app: &App) -> Self {
        app.greeting
    }
}

#[derive(Deserialize)]
struct Login {
    user: String,
    device: Option<String>,
    seconds: Option<u64>,
}

async fn login(
    manager: TokenManager<Profile>,
    Json(login): Json<Login>,
) -> Result<Json<Value>, Error> {
    let mut options = TokenOptions::new();
    if let Some(device) = login.device {
        options = options.metadata("device", device);
    }
    if let Some(seconds) = login.seconds {
        options = options.ttl(Duration::from_secs(seconds));
    }
    let IssuedToken { token, evicted, .. } = manager.set_token_with(&login.user, options).await?;
    let evicted: Vec<_> = evicted.iter().map(|it| *it.id()).collect();
    Ok(Json(
        json!({"token": token, "id": token.id(), "evicted": evicted}),
    ))
}

async fn me(session: Session<Profile>) -> Json<Value> {
    let user = session.user();
    Json(json!({
        "id": user.id(),
        "detail": user.detail(),
        "token_id": session.token_id(),
        "remaining": user.token_remaining().map(|it| it.as_secs()),
    }))
}

async fn name(user: User<Profile>) -> String {
    user.detail()
        .map(|it| it.name.clone())
        .expect("a loaded user")
}

async fn home(
    State(greeting): State<&'static str>,
    user: Option<User<Profile>>,
    session: Option<Session<Profile>>,
) -> String {
    assert_eq!(user.is_some(), session.is_some());
    match user {
        Some(user) => format!("{greeting} {}", user.id()),
        None => format!("{greeting} stranger"),
    }
}

async fn sessions(session: Session<Profile>) -> Result<Json<Value>, Error> {
    let manager = session.manager();
    let list = manager.list_user_tokens(session.user().id()).await?;
    let list = list.iter().map(|it| {
        json!({
            "id": it.id(),
            "device": it.metadata().get("device"),
            "current": it.id() == session.token_id(),
        })
    });
    Ok(Json(list.collect()))
}

async fn revoke(
    user: User<Profile>,
    manager: TokenManager<Profile>,
    Path(id): Path<TokenId>,
) -> Result<StatusCode, Error> {
    Ok(match manager.delete_user_token(user.id(), &id).await? {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::NOT_FOUND,
    })
}

async fn refresh(session: Session<Profile>) -> Result<Json<bool>, Error> {
    let refreshed = session.refresh(Duration::from_secs(1000)).await?;
    Ok(Json(refreshed))
}

async fn logout(session: Session<Profile>) -> Result<Json<bool>, Error> {
    Ok(Json(session.log_out().await?))
}

async fn logout_others(session: Session<Profile>) -> Result<Json<u64>, Error> {
    Ok(Json(session.log_out_others().await?))
}

async fn logout_everywhere(session: Session<Profile>) -> Result<Json<u64>, Error> {
    Ok(Json(session.log_out_everywhere().await?))
}

/// A server on a loopback port of its own; stops when dropped.
pub struct Server {
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Server {
    /// Serves by `axum::serve`.
    pub async fn axum(router: Router) -> Self {
        Self::start(async |listener| {
            axum::serve(listener, router)
                .await
                .expect("an endless server");
        })
        .await
    }

    pub async fn start<F, Fut>(serve: F) -> Self
    where
        F: FnOnce(TcpListener) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self {
            address: listener.local_addr().expect("a bound address"),
            serving: tokio::spawn(serve(listener)),
        }
    }

    /// A client without a token.
    pub fn client(&self) -> Client {
        Client {
            http: reqwest::Client::new(),
            address: self.address,
            token: None,
        }
    }

    /// A client that has logged in. A busy machine may take longer than the deadline of a store at first, which is no
    /// matter of the test.
    pub async fn login(&self, user: &str, device: &str) -> Client {
        let login = json!({"user": user, "device": device});
        let mut attempts = 1;
        let answer = loop {
            let answer = self.client().post("/login", &login).await;
            if answer.status() != 503 || attempts == 5 {
                break answer;
            }
            attempts += 1;
        };
        assert_eq!(answer.status(), 200, "the status of a login");
        let answer: Value = answer.json().await.expect("a token");
        let mut client = self.client();
        client.token = answer["token"].as_str().map(str::to_owned);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What a browser or an app is.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    pub token: Option<String>,
}

impl Client {
    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> reqwest::Response {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Response {
        self.try_send(method, path, body).await.expect("an answer")
    }

    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Result<reqwest::Response> {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.timeout(Duration::from_secs(10)).send().await
    }

    /// The same address with another token.
    pub fn with_token(&self, token: impl Display) -> Self {
        Self {
            token: Some(token.to_string()),
            ..self.clone()
        }
    }

    /// The status of a GET.
    pub async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status().as_u16()
    }

    /// The JSON that a successful request answers.
    pub async fn json(&self, method: Method, path: &str) -> Value {
        let response = self.send(method, path, None).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.expect("JSON")
    }
}
