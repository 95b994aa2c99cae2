//! Streams that end with their session: the example `websocket`, with a WebSocket client and with a browser.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Client;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::{browser::Browser, examples::Example};

/// How long anything may take, on however busy a machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);

/// A WebSocket of `alice` is hers, and closed when she logs out elsewhere; nobody else gets one.
#[tokio::test]
async fn a_websocket_ends_with_its_session() {
    let example = Example::start("websocket", &[]);
    let base = &example.bases[0];
    let (laptop, phone) = (log_in(base).await, log_in(base).await);

    for offered in [
        None,
        Some("bearer".to_owned()),
        Some(format!("bearer, {laptop}x")),
    ] {
        let Err(Error::Http(refused)) = connect(base, offered).await else {
            panic!("a stranger got a WebSocket");
        };
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }

    let mut doomed = connect(base, Some(format!("bearer, {laptop}")))
        .await
        .unwrap();
    let mut other = connect(base, Some(format!("chat, bearer, {phone}")))
        .await
        .unwrap();
    assert_eq!(say(&mut doomed, "one").await, "alice: one");
    log_out(base, &laptop).await;
    let bye = timeout(LONG_TIMEOUT, async {
        loop {
            if let Message::Close(bye) = doomed.next().await.unwrap().unwrap() {
                return bye;
            }
        }
    });
    let expected = CloseFrame {
        code: CloseCode::Policy,
        reason: "logged out".into(),
    };
    assert_eq!(bye.await.unwrap(), Some(expected));
    assert_eq!(say(&mut other, "two").await, "alice: two");
}

/// A page of another site gets no WebSocket, even where the browser sends the cookie along.
#[tokio::test]
async fn another_site_gets_no_websocket() {
    let example = Example::start("websocket", &[]);
    let base = &example.bases[0];
    let cookie = format!("__Host-session={}", log_in(base).await);
    for (origin, expected) in [(base.as_str(), 101), ("http://evil.example", 403)] {
        let url = format!("{}/echo", base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        for (name, value) in [("cookie", cookie.as_str()), ("origin", origin)] {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(name, value);
        }
        let status = match connect_async(request).await {
            Ok((_, response)) => response.status(),
            Err(Error::Http(response)) => response.status(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(status, expected, "{origin}");
    }
}

/// Server-sent events stop when the session ends, and not before.
#[tokio::test]
async fn server_sent_events_end_with_their_session() {
    let example = Example::start("websocket", &[]);
    let base = &example.bases[0];
    let token = log_in(base).await;
    let url = format!("{base}/clock");
    let refused = Client::new().get(&url).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 401);
    let cookie = format!("theme=dark; __Host-session={token}");
    let stream = Client::new().get(&url).header("cookie", cookie).send();
    let mut stream = stream.await.unwrap();
    // Longer than the interval at which the store is asked.
    for tick in 0..10 {
        let chunk = timeout(LONG_TIMEOUT, stream.chunk())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(chunk.unwrap(), format!("data: alice: {tick}\n\n"));
    }
    log_out(base, &token).await;
    let rest = timeout(LONG_TIMEOUT, async {
        while stream.chunk().await.unwrap().is_some() {}
    });
    rest.await.expect("the end of the stream");
}

/// The same in a browser, which knows what a page may send and what it may not.
#[tokio::test]
async fn a_browser_can_do_all_of_that() {
    let example = Example::start("websocket", &[]);
    let mut browser = Browser::open(&example.bases[0]).await;
    let log = browser.run(
        r#"
        const shows = async (text) => {
            while (!document.getElementById("log").textContent.includes(text)) {
                await new Promise((done) => setTimeout(done, 20));
            }
        };
        await logIn();
        await shows("socket open, protocol bearer");
        await shows("socket says alice: hello");
        await shows("clock says alice: 1");
        // The cookie is not for scripts, but comes along with requests.
        if (document.cookie.includes("session")) throw new Error("a script can read the cookie");
        await logOut();
        await shows("logout: 200");
        await shows("socket closed: 1008 logged out");
        await shows("clock stopped");
        const again = await fetch("/logout", { method: "POST" });
        return document.getElementById("log").textContent + again.status;
        "#,
    );
    let log = timeout(LONG_TIMEOUT, log).await.expect("the tour to end");
    assert!(log.ends_with("401"), "{log}");
}

/// A browser keeps the cookie, sends it, and removes it when a response clears it: after a logout, and after a logout
/// elsewhere of which the browser does not know.
#[tokio::test]
async fn a_browser_keeps_the_cookie_of_a_live_session_only() {
    let example = Example::start("websocket", &[]);
    let base = &example.bases[0];
    let mut browser = Browser::open(base).await;
    let tour = async {
        for elsewhere in [false, true] {
            let token = browser
                .run("const login = await fetch('/login/alice', { method: 'POST' }); return (await login.json()).access_token;")
                .await;
            let [cookie] = &browser.cookies(base).await[..] else {
                panic!("a login sets one cookie");
            };
            assert_eq!(cookie["name"], "__Host-session");
            assert_eq!(cookie["value"], token.as_str());
            assert_eq!(cookie["path"], "/");
            for attribute in ["httpOnly", "secure"] {
                assert_eq!(cookie[attribute], true, "{attribute}");
            }
            assert_eq!(cookie["sameSite"], "Strict");
            assert_eq!(cookie["session"], false, "it outlives the browser");
            let status = if elsewhere {
                log_out(base, &token).await;
                assert_eq!(browser.cookies(base).await.len(), 1);
                "401"
            } else {
                "200"
            };
            let logout = "return String((await fetch('/logout', { method: 'POST' })).status)";
            assert_eq!(browser.run(logout).await, status);
            let left = browser.cookies(base).await;
            assert!(left.is_empty(), "{left:?}");
        }
    };
    timeout(LONG_TIMEOUT, tour).await.expect("the tour to end");
}

async fn log_in(base: &str) -> String {
    let login = Client::new().post(format!("{base}/login/alice")).send();
    let issued: Value = login.await.unwrap().json().await.unwrap();
    issued["access_token"].as_str().unwrap().to_owned()
}

async fn log_out(base: &str, token: &str) {
    let logout = Client::new().post(format!("{base}/logout"));
    let logout = logout.bearer_auth(token).send().await.unwrap();
    assert_eq!(logout.status().as_u16(), 200);
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket that offers these protocols; the server must choose `bearer`, and never the token.
async fn connect(base: &str, offered: Option<String>) -> Result<Socket, Error> {
    let url = format!("{}/echo", base.replacen("http", "ws", 1));
    let mut request = url.into_client_request().unwrap();
    if let Some(offered) = offered {
        let offered = HeaderValue::try_from(offered).unwrap();
        request
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, offered);
    }
    let (socket, response) = connect_async(request).await?;
    assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "bearer");
    Ok(socket)
}

/// What the server answers.
async fn say(socket: &mut Socket, text: &str) -> String {
    socket.send(Message::text(text)).await.unwrap();
    let answer = timeout(LONG_TIMEOUT, socket.next()).await.unwrap();
    answer.unwrap().unwrap().into_text().unwrap().to_string()
}
