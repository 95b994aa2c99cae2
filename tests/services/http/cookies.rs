//! Session cookies, over axum and over hyper alone.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Request, Response, StatusCode, header::SET_COOKIE},
    response::{AppendHeaders, IntoResponse},
    routing::{get, post},
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use reqwest::Method;
use tower::{Layer, service_fn};
use tower_bearer_session::{
    Error, ErrorKind, IssuedToken, MemoryStore, ReplaceOptions, Replacement, Session, SessionLayer,
    TokenManager, TokenOptions, User,
    middleware::{ProblemJson, SessionCookie, TokenSource},
    test_util::Faults,
};

use super::{Profile, Server, builder};
use crate::stores::forged;

const CLEARED: &str = "__Host-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0";
const THEME: &str = "theme=dark; Path=/";

/// The whole way of a browser: log in, be known, get another token, log out.
#[tokio::test]
async fn a_cookie_lasts_until_the_logout() {
    for server in servers(&manager(MemoryStore::new())).await {
        let mut browser = Browser::of(&server);
        assert_eq!(browser.ask("GET", "/me").await, (401, vec![]));
        let (status, set) = browser.ask("POST", "/login/al").await;
        assert_eq!(status, 200);
        let first = browser.token();
        let expected = |token: &str, max_age: u32| {
            format!(
                "__Host-session={token}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age={max_age}"
            )
        };
        assert_eq!(set, [THEME.to_owned(), expected(&first, 34_560_000)]);
        assert_eq!(browser.ask("GET", "/me").await, (200, vec![]));
        let (status, set) = browser.ask("POST", "/rotate").await;
        let second = browser.token();
        assert_ne!(first, second);
        assert_eq!((status, set), (200, vec![expected(&second, 34_560_000)]));
        assert_eq!(browser.ask("GET", "/me").await, (200, vec![]));
        let (status, set) = browser.ask("POST", "/logout").await;
        assert_eq!((status, set), (200, vec![CLEARED.to_owned()]));
        assert_eq!(browser.ask("GET", "/me").await, (401, vec![]));
    }
}

/// A dead cookie is cleared where the layer or an extractor refuses the request, and where the request is anonymous.
/// The cookies that the handler sets are kept.
#[tokio::test]
async fn a_dead_cookie_is_cleared() {
    let manager = manager(MemoryStore::new());
    for server in servers(&manager).await {
        let mut browser = Browser::of(&server);
        for dead in dead_tokens(&manager).await {
            let cleared = CLEARED.to_owned();
            for (path, status, set) in [
                ("/me", 401, vec![cleared.clone()]),
                ("/strict", 401, vec![cleared.clone()]),
                ("/", 200, vec![THEME.to_owned(), cleared]),
            ] {
                browser.put(&dead);
                assert_eq!(browser.ask("GET", path).await, (status, set), "{path}");
                // What is gone is not cleared again.
                let (_, set) = browser.ask("GET", path).await;
                assert!(!set.contains(&CLEARED.to_owned()), "{path}");
            }
        }
    }
}

/// A login with a dead cookie sets the new one, and nothing clears it.
#[tokio::test]
async fn a_login_with_a_dead_cookie_is_not_undone() {
    let manager = manager(MemoryStore::new());
    for server in servers(&manager).await {
        for dead in dead_tokens(&manager).await {
            let mut browser = Browser::of(&server);
            browser.put(&dead);
            let (status, set) = browser.ask("POST", "/login/al").await;
            assert_eq!((status, set.len()), (200, 2), "{set:?}");
            assert_eq!(browser.ask("GET", "/me").await, (200, vec![]));
        }
    }
}

/// While the store or the loader fails nobody knows whether a token is live.
#[tokio::test]
async fn a_fault_clears_no_cookie() {
    let faults = Faults::new();
    let fails = &*Box::leak(Box::new(AtomicBool::new(false)));
    let manager = TokenManager::builder(faults.wrap(MemoryStore::new()))
        .load_user(async |id: String| match fails.load(Ordering::Relaxed) {
            true => Err("the database is down"),
            false => Ok(Some(Profile { name: id })),
        })
        .build()
        .unwrap();
    for server in servers(&manager).await {
        let mut browser = Browser::of(&server);
        browser.ask("POST", "/login/al").await;
        let live = browser.token();
        for dead in [live, forged("al", 0)] {
            browser.put(&dead);
            for kind in [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::Store] {
                faults.fail(kind);
                for path in ["/me", "/strict", "/"] {
                    assert_eq!(browser.ask("GET", path).await, (503, vec![]), "{kind:?}");
                }
            }
            faults.heal();
        }
        let token = manager.set_token("bo", None).await.unwrap();
        browser.put(token.expose_secret());
        manager.delete_user("bo").await.unwrap();
        fails.store(true, Ordering::Relaxed);
        for path in ["/me", "/strict", "/"] {
            assert_eq!(browser.ask("GET", path).await, (503, vec![]), "{path}");
        }
        fails.store(false, Ordering::Relaxed);
        assert_eq!(browser.ask("GET", "/me").await, (200, vec![]));
    }
}

/// A dead token in `Authorization` says nothing of a cookie.
#[tokio::test]
async fn a_dead_bearer_token_clears_no_cookie() {
    let manager = manager(MemoryStore::new());
    for server in servers(&manager).await {
        for dead in dead_tokens(&manager).await {
            let mut browser = Browser::of(&server);
            browser.bearer = Some(dead.clone());
            assert_eq!(browser.ask("GET", "/me").await, (401, vec![]));
            assert_eq!(browser.ask("GET", "/strict").await, (401, vec![]));
            let theme = vec![THEME.to_owned()];
            assert_eq!(browser.ask("GET", "/").await, (200, theme));
            // With a cookie as well, live or dead, the request is ambiguous.
            let token = manager.set_token("al", None).await.unwrap();
            for cookie in [token.expose_secret(), &dead] {
                browser.put(cookie);
                for path in ["/me", "/strict", "/"] {
                    assert_eq!(browser.ask("GET", path).await, (400, vec![]));
                }
            }
        }
    }
}

/// Where the session ends, by the cookie: the end that the store knows, or as late as browsers allow.
#[tokio::test]
async fn a_cookie_does_not_end_before_its_session() {
    let manager = manager(MemoryStore::new());
    let cookie = SessionCookie::new("session").unwrap();
    let limit = 400 * 24 * 3600;
    for (lifetime, expected) in [
        (None, limit),
        (Some(Duration::from_secs(3600)), 3600),
        (Some(Duration::from_millis(1500)), 2),
        (Some(Duration::from_millis(1)), 1),
        (Some(Duration::from_secs(limit)), limit),
        (Some(Duration::from_secs(limit + 1)), limit),
    ] {
        let mut options = TokenOptions::new();
        if let Some(lifetime) = lifetime {
            options = options.max_lifetime(lifetime);
        }
        let issued = manager.set_token_with("al", options).await.unwrap();
        assert_eq!(max_age(&cookie, &issued), Some(expected), "{lifetime:?}");
        let temporary = cookie.clone().until_browser_closes();
        assert_eq!(max_age(&temporary, &issued), None);
    }
}

/// A replacement does not move the absolute end of a session, and an expiry that slides moves no cookie.
#[tokio::test]
async fn a_replaced_cookie_ends_with_its_session() {
    let manager = manager(MemoryStore::new());
    let cookie = SessionCookie::new("session").unwrap();
    let lifetime = Duration::from_secs(3600);
    let ttl = Duration::from_secs(60);
    let options = TokenOptions::new().ttl(ttl).max_lifetime(lifetime);
    let mut issued = manager.set_token_with("al", options).await.unwrap();
    let ends_at = issued.ends_at.expect("an absolute end");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let options = ReplaceOptions::new().ttl(ttl);
        let replaced = manager.replace_token(issued.token.expose_secret(), options);
        let Replacement::Replaced { issued: next, .. } = replaced.await.unwrap() else {
            panic!("a replacement");
        };
        issued = next;
        let max_age = Duration::from_secs(max_age(&cookie, &issued).expect("an end"));
        let cookie_ends_at = issued.issued_at + max_age;
        assert!(cookie_ends_at >= ends_at, "{max_age:?}");
        assert!(cookie_ends_at < ends_at + Duration::from_secs(1));
        assert!(max_age <= lifetime);
    }
    // More than a second has passed.
    assert!(max_age(&cookie, &issued).unwrap() < 3600);
}

/// Whatever a hook does to a refusal, the cookie is cleared, except by a hook that sets it.
#[tokio::test]
async fn hooks_keep_the_cleared_cookie() {
    let manager = manager(MemoryStore::new());
    let cookie = SessionCookie::new("session").unwrap();
    let layer = SessionLayer::new(manager.clone()).token_sources([cookie.source()]);
    let anew = |_: &_, _: Response<Body>| {
        let fresh = (
            StatusCode::UNAUTHORIZED,
            [(SET_COOKIE, "a=b; Path=/")],
            "no",
        );
        fresh.into_response()
    };
    let own = |_: &_, mut response: Response<Body>| {
        let own = "__Host-session=x; Path=/".parse().unwrap();
        response.headers_mut().append(SET_COOKIE, own);
        response
    };
    let routes = || Router::new().route("/me", get(async |_: User<Profile>| ()));
    for (router, expected) in [
        (routes().layer(layer.clone()), &[CLEARED][..]),
        (
            routes().layer(layer.clone().on_rejection(ProblemJson)),
            &[CLEARED],
        ),
        (
            routes().layer(layer.clone().on_rejection(anew)),
            &["a=b; Path=/", CLEARED],
        ),
        (
            routes().layer(layer.clone().on_rejection(own)),
            &["__Host-session=x; Path=/"],
        ),
        (
            routes().layer(layer.clone().optional().on_rejection(anew)),
            &["a=b; Path=/", CLEARED],
        ),
        (
            routes().layer(layer.clone().optional().on_rejection(own)),
            &["__Host-session=x; Path=/"],
        ),
        // The outer layer finds the cookie cleared by the inner one.
        (
            routes()
                .layer(layer.clone())
                .layer(layer.clone().optional()),
            &[CLEARED],
        ),
    ] {
        let server = Server::axum(router).await;
        let mut browser = Browser::of(&server);
        browser.put("x");
        let (status, set) = browser.ask("GET", "/me").await;
        assert_eq!(status, 401);
        assert_eq!(set, expected);
    }
}

/// The loader may find the user of a live session later.
#[tokio::test]
async fn a_missing_user_clears_no_cookie() {
    let manager = manager(MemoryStore::new());
    let token = manager.set_token("nobody", None).await.unwrap();
    for server in servers(&manager).await {
        let mut browser = Browser::of(&server);
        browser.put(token.expose_secret());
        let (status, set) = browser.ask("GET", "/me").await;
        assert_eq!((status, set.len()), (401, 0), "{set:?}");
    }
}

/// Tokens that no store will ever know as live again.
async fn dead_tokens(manager: &TokenManager<Profile>) -> [String; 4] {
    let logged_out = manager.set_token("al", None).await.unwrap();
    manager
        .delete_token(logged_out.expose_secret())
        .await
        .unwrap();
    let replaced = manager.set_token("al", None).await.unwrap();
    let options = ReplaceOptions::new().grace(Duration::ZERO);
    let replacing = manager.replace_token(replaced.expose_secret(), options);
    drop(replacing.await.unwrap());
    [
        "x".to_owned(),
        forged("al", 0),
        logged_out.expose_secret().to_owned(),
        replaced.expose_secret().to_owned(),
    ]
}

fn max_age(cookie: &SessionCookie, issued: &IssuedToken) -> Option<u64> {
    let mut headers = HeaderMap::new();
    cookie.set(issued).append_to(&mut headers);
    let value = headers[SET_COOKIE].to_str().unwrap();
    let (_, max_age) = value.split_once("; Max-Age=")?;
    Some(max_age.parse().unwrap())
}

/// A manager whose loader knows everybody but `nobody`.
fn manager(store: MemoryStore) -> TokenManager<Profile> {
    let builder = builder(store).load_user(async |id: String| {
        let user = (id != "nobody").then_some(Profile { name: id });
        Ok::<_, Error>(user)
    });
    builder.build().unwrap()
}

/// The same site with axum and with hyper: `/me` is under a required layer, the rest under an optional one.
async fn servers(manager: &TokenManager<Profile>) -> [Server; 2] {
    let cookie = SessionCookie::new("session").unwrap();
    let layer = SessionLayer::new(manager.clone())
        .token_sources([TokenSource::authorization(), cookie.source()]);
    [
        Server::axum(axum_site(&layer, cookie.clone())).await,
        hyper_site(layer, manager.clone(), cookie).await,
    ]
}

fn axum_site(layer: &SessionLayer<Profile>, cookie: SessionCookie) -> Router {
    let theme = || AppendHeaders([(SET_COOKIE, THEME)]);
    let private = Router::new()
        .route("/me", get(async |_: User<Profile>| ()))
        .layer(layer.clone());
    Router::new()
        .route("/", get(async move || theme()))
        .route("/strict", get(async |_: User<Profile>| ()))
        .route(
            "/login/{user}",
            post(
                async move |State(cookie): State<SessionCookie>,
                            manager: TokenManager<Profile>,
                            Path(user): Path<String>| {
                    let login = manager.set_token_with(&user, TokenOptions::new());
                    let issued = login.await?;
                    Ok::<_, Error>((theme(), cookie.set(&issued), "hello"))
                },
            ),
        )
        .route("/rotate", post(rotate))
        .route("/logout", post(log_out))
        .layer(layer.clone().optional())
        .merge(private)
        .with_state(cookie)
}

async fn rotate(
    State(cookie): State<SessionCookie>,
    session: Session<Profile>,
) -> Result<impl IntoResponse, Error> {
    match session.replace_token(ReplaceOptions::new()).await? {
        Replacement::Replaced { issued, .. } => Ok(cookie.set(&issued).into_response()),
        other => Ok((StatusCode::CONFLICT, format!("{other:?}")).into_response()),
    }
}

async fn log_out(
    State(cookie): State<SessionCookie>,
    session: Session<Profile>,
) -> Result<impl IntoResponse, Error> {
    assert_eq!(session.source(), &cookie.source());
    session.log_out().await?;
    Ok(cookie.clear())
}

async fn hyper_site(
    layer: SessionLayer<Profile>,
    manager: TokenManager<Profile>,
    cookie: SessionCookie,
) -> Server {
    let site = service_fn(move |request: Request<Incoming>| {
        let (manager, cookie) = (manager.clone(), cookie.clone());
        async move { Ok::<_, Infallible>(by_hand(&manager, &cookie, request).await) }
    });
    let private = layer.clone().layer(site.clone());
    let public = layer.optional().layer(site);
    Server::start(async move |listener| {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (private, public) = (private.clone(), public.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (private, public) = (private.clone(), public.clone());
                async move {
                    match request.uri().path() {
                        "/me" => tower::ServiceExt::oneshot(private, request).await,
                        _ => tower::ServiceExt::oneshot(public, request).await,
                    }
                }
            });
            let service = TowerToHyperService::new(service);
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
    .await
}

/// The handlers without axum.
async fn by_hand(
    manager: &TokenManager<Profile>,
    cookie: &SessionCookie,
    request: Request<Incoming>,
) -> Response<String> {
    let mut response = Response::new(String::new());
    let session = request.extensions().get::<Session<Profile>>();
    match (request.uri().path(), session) {
        ("/", _) => {
            let theme = THEME.parse().unwrap();
            response.headers_mut().append(SET_COOKIE, theme);
        }
        ("/me", Some(_)) => {}
        ("/rotate", Some(session)) => {
            let replaced = session.replace_token(ReplaceOptions::new()).await;
            if let Replacement::Replaced { issued, .. } = replaced.unwrap() {
                cookie.set(&issued).append_to(response.headers_mut());
            }
        }
        ("/logout", Some(session)) => {
            session.log_out().await.unwrap();
            cookie.clear().append_to(response.headers_mut());
        }
        ("/strict" | "/rotate" | "/logout", None) => {
            return tower_bearer_session::Rejection::InvalidToken.into();
        }
        (login, _) => {
            let user = login.strip_prefix("/login/").unwrap();
            let issued = manager.set_token_with(user, TokenOptions::new()).await;
            let theme = THEME.parse().unwrap();
            response.headers_mut().append(SET_COOKIE, theme);
            let cookie = cookie.set(&issued.unwrap());
            cookie.append_to(response.headers_mut());
        }
    }
    response
}

/// What a browser does with cookies, as far as a test needs it.
struct Browser {
    http: reqwest::Client,
    base: String,
    jar: BTreeMap<String, String>,
    bearer: Option<String>,
}

impl Browser {
    fn of(server: &Server) -> Self {
        Self {
            http: reqwest::Client::new(),
            base: format!("http://{}", server.address),
            jar: BTreeMap::new(),
            bearer: None,
        }
    }

    fn put(&mut self, token: &str) {
        let name = "__Host-session".to_owned();
        self.jar.insert(name, token.to_owned());
    }

    /// The token in the cookie.
    fn token(&self) -> String {
        self.jar["__Host-session"].clone()
    }

    /// The status and the `Set-Cookie` fields of a response.
    async fn ask(&mut self, method: &str, path: &str) -> (u16, Vec<String>) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, self.base.clone() + path);
        let cookies = self
            .jar
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let cookies = Vec::from_iter(cookies).join("; ");
        if !cookies.is_empty() {
            request = request.header("cookie", cookies);
        }
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        let response = request.send().await.unwrap();
        let set = response.headers().get_all(SET_COOKIE).iter();
        let set = Vec::from_iter(set.map(|value| value.to_str().unwrap().to_owned()));
        for cookie in &set {
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.jar.insert(name.to_owned(), value.to_owned());
            if attributes.split("; ").any(|it| it == "Max-Age=0") {
                self.jar.remove(name);
            }
        }
        (response.status().as_u16(), set)
    }
}
