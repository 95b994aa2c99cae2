//! Refusals on the wire: framing, media types, and what they give away.

use axum::{
    Router, ServiceExt,
    body::Body,
    extract::Request,
    http::{HeaderValue, Response, header},
    response::IntoResponse,
    routing::{get, post},
};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, Service};
use tower_bearer_session::{
    Error, ErrorKind, MemoryStore, Rejection, Session, SessionLayer, TokenManager, User,
    middleware::{OnRejection, ProblemJson},
};

use super::{Profile, Server, builder};

type Answer = Response<Body>;

/// Serves a whole router, with the layer around it.
async fn serve<S>(service: S) -> Server
where
    S: Service<Request, Response = Answer, Error = std::convert::Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    Server::start(async |listener: TcpListener| {
        let service = ServiceExt::<Request>::into_make_service(service);
        axum::serve(listener, service)
            .await
            .expect("an endless server");
    })
    .await
}

/// The text of an extractor's refusal has a `Content-Length` when the layer around the whole router sees it.
fn router() -> Router {
    Router::new()
        .route("/user", get(async |_: User<Profile>| ()))
        .route("/forgotten", get(async |_: User<u8>| ()))
        .route("/login", post(async || Err::<(), _>(limit())))
}

fn limit() -> Error {
    Error::new(
        ErrorKind::SessionLimit,
        "the user has reached the session limit",
    )
}

fn layer() -> SessionLayer<Profile> {
    SessionLayer::new(builder(MemoryStore::new()).build().unwrap()).optional()
}

/// What the server sends, byte for byte, until it closes the connection.
async fn raw(server: &Server, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.to_ascii_lowercase()
}

/// Whatever a hook does to a body, its length is told rightly, and nothing else is said of the body that is gone.
#[tokio::test]
async fn a_replaced_body_is_framed_rightly() {
    async fn holds<R>(hook: R, body: &str)
    where
        R: OnRejection<Body, Body = Body> + Clone + Send + Sync + 'static,
    {
        // Whatever layers in between may say of the body.
        let between = tower::util::MapResponseLayer::new(|mut response: Answer| {
            let headers = response.headers_mut();
            for (name, value) in [
                (header::CONTENT_ENCODING, "gzip"),
                (header::ETAG, "\"x\""),
                (header::LAST_MODIFIED, "Thu, 01 Jan 1970 00:00:00 GMT"),
                (header::ACCEPT_RANGES, "bytes"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            headers.insert("x-between", HeaderValue::from_static("stays"));
            response
        });
        let server = serve(layer().on_rejection(hook).layer(between.layer(router()))).await;
        for (method, path) in [("GET", "/user"), ("GET", "/forgotten"), ("POST", "/login")] {
            let answer = raw(&server, method, path).await;
            let (head, rest) = answer.split_once("\r\n\r\n").expect("a whole answer");
            if !body.is_empty() {
                assert_eq!(rest, body);
            }
            let length = format!("content-length: {}", rest.len());
            assert!(head.contains(&length), "{head}");
            assert_eq!(head.matches("content-length").count(), 1, "{head}");
            for gone in [
                "gzip",
                "etag",
                "last-modified",
                "accept-ranges",
                "transfer-encoding",
            ] {
                assert!(!head.contains(gone), "{gone} in {head}");
            }
            assert!(head.contains("x-between: stays"), "{head}");
        }
    }
    let to = |body: &'static str| {
        move |_: &Rejection, response: Answer| response.map(|_| Body::from(body))
    };
    holds(to("a body that is much longer than the one that was there before: it must not be cut off, and nothing must wait"), "a body that is much longer than the one that was there before: it must not be cut off, and nothing must wait").await;
    holds(to("no"), "no").await;
    holds(ProblemJson, "").await;
    // A hook that answers with a length of its own.
    let other = |_: &Rejection, mut response: Answer| {
        let wrong = HeaderValue::from_static("77");
        response.headers_mut().insert(header::CONTENT_LENGTH, wrong);
        response.map(|_| Body::from("short"))
    };
    holds(other, "short").await;
}

/// A hook that empties the body, and none at all.
#[tokio::test]
async fn an_emptied_body_has_no_length_but_zero() {
    let empty = |_: &Rejection, response: Answer| response.map(|_| Body::empty());
    let server = serve(layer().on_rejection(empty).layer(router())).await;
    for path in ["/user", "/forgotten"] {
        let answer = raw(&server, "GET", path).await;
        assert!(answer.contains("content-length: 0"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    let server = serve(layer().layer(router())).await;
    let response = server.client().get("/user").await;
    let length: usize = response.headers()[CONTENT_LENGTH]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(response.text().await.unwrap().len(), length);
}

/// Every body has its media type, by whatever way the refusal came.
#[tokio::test]
async fn every_body_has_a_media_type() {
    async fn holds<R>(layer: SessionLayer<Profile, R>, expected: &str)
    where
        R: OnRejection<Body, Body = Body> + Clone + Send + Sync + 'static,
    {
        let server = Server::axum(router().layer(layer)).await;
        let client = server.client();
        for response in [
            client.get("/user").await,
            client.get("/forgotten").await,
            client.post("/login", &serde_json::Value::Null).await,
        ] {
            assert_eq!(response.headers()[CONTENT_TYPE], expected);
            assert!(!response.text().await.unwrap().is_empty());
        }
    }
    let text = "text/plain; charset=utf-8";
    holds(layer(), text).await;
    holds(
        layer().on_rejection(ProblemJson),
        "application/problem+json",
    )
    .await;
    let hook = |rejection: &Rejection, response: Answer| {
        response.map(|_| Body::from(format!("no: {rejection}")))
    };
    holds(layer().on_rejection(hook), text).await;
    let html = |_: &Rejection, mut response: Answer| {
        let html = HeaderValue::from_static("text/html");
        response.headers_mut().insert(header::CONTENT_TYPE, html);
        response.map(|_| Body::from("<p>no"))
    };
    holds(layer().on_rejection(html), "text/html").await;
    // The layer's own refusal, which has no body unless a hook gives it one.
    let required = || SessionLayer::new(builder(MemoryStore::new()).build().unwrap());
    let server = Server::axum(router().layer(required().on_rejection(hook))).await;
    let response = server.client().get("/user").await;
    assert_eq!(response.headers()[CONTENT_TYPE], text);
    let server = Server::axum(router().layer(required())).await;
    let response = server.client().get("/user").await;
    assert!(!response.headers().contains_key(CONTENT_TYPE));
    assert_eq!(response.text().await.unwrap(), "");
}

/// An error is the same response whether a handler returns it or turns it into a rejection first.
#[tokio::test]
async fn an_error_has_one_status() {
    for kind in [
        ErrorKind::Config,
        ErrorKind::InvalidInput,
        ErrorKind::SessionLimit,
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::Unconfirmed,
        ErrorKind::Store,
        ErrorKind::LoadUser,
        ErrorKind::NoLoader,
        ErrorKind::Serialize,
        ErrorKind::Random,
    ] {
        let error = || Error::with_source(kind, "what happened", "a cause with details");
        let direct = error().into_response();
        let rejection = Rejection::from(error());
        assert_eq!(direct.status(), rejection.status(), "{kind:?}");
        let converted = rejection.into_response();
        assert_eq!(direct.status(), converted.status(), "{kind:?}");
        assert_eq!(direct.headers(), converted.headers(), "{kind:?}");
        for response in [direct, converted] {
            assert!(
                response.extensions().get::<Rejection>().is_some(),
                "{kind:?}"
            );
        }
    }
}

/// A hook sees the errors that handlers return, whatever they are about.
#[tokio::test]
async fn a_hook_sees_every_error() {
    let hook = |rejection: &Rejection, response: Answer| {
        response.map(|_| Body::from(format!("seen: {rejection}")))
    };
    let server = Server::axum(router().layer(layer().on_rejection(hook))).await;
    let response = server
        .client()
        .post("/login", &serde_json::Value::Null)
        .await;
    assert_eq!(response.status(), 409);
    let text = response.text().await.unwrap();
    assert_eq!(text, "seen: the user has reached the session limit");
}

/// A layer that was forgotten is a matter between the program and its log: the client sees no type.
#[tokio::test]
async fn a_client_sees_no_type_names() {
    let routes = || {
        Router::new()
            .route("/user", get(async |_: User<u8>| ()))
            .route("/session", get(async |_: Session<u8>| ()))
            .route("/manager", get(async |_: TokenManager<u8>| ()))
            .route("/maybe", get(async |_: Option<User<u8>>| ()))
            .route("/default", get(async |_: User| ()))
    };
    let hook = |rejection: &Rejection, response: Answer| {
        response.map(|_| Body::from(rejection.to_string()))
    };
    for server in [
        Server::axum(routes()).await,
        Server::axum(routes().layer(layer())).await,
        Server::axum(routes().layer(layer().on_rejection(hook))).await,
        Server::axum(routes().layer(layer().on_rejection(ProblemJson))).await,
    ] {
        for path in ["/user", "/session", "/manager", "/maybe", "/default"] {
            let response = server.client().get(path).await;
            assert_eq!(response.status(), 500);
            let shown = format!("{:?}", response.headers()) + &response.text().await.unwrap();
            for part in ["::", "<", "User", "u8", "Profile", "Value", "Layer"] {
                assert!(!shown.contains(part), "{path}: {part} in {shown}");
            }
        }
    }
}

/// Without a word from the application, no request makes a refusal a success: gateways judge by the status.
#[tokio::test]
async fn a_refusal_is_never_a_success() {
    let required = SessionLayer::<Profile>::new(builder(MemoryStore::new()).build().unwrap());
    for layer in [required, layer()] {
        let server = Server::axum(
            router()
                .route("/rpc", post(async |_: User<Profile>| ()))
                .layer(layer),
        )
        .await;
        let client = reqwest::Client::new();
        for method in [reqwest::Method::POST, reqwest::Method::GET] {
            for kind in [
                "application/grpc",
                "application/grpc+proto",
                "application/grpc;x=y",
            ] {
                let path = if method == "POST" { "rpc" } else { "user" };
                let url = format!("http://{}/{path}", server.address);
                let request = client
                    .request(method.clone(), url)
                    .header(CONTENT_TYPE, kind);
                let response = request.send().await.unwrap();
                assert_eq!(response.status(), 401, "{method} {kind}");
                assert!(!response.headers().contains_key("grpc-status"));
            }
        }
    }
}
