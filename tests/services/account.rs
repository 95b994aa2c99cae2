//! The example `account`: everything over HTTP, and its page in a browser.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header::WWW_AUTHENTICATE};
use serde_json::{Value, json};

use crate::{browser::Browser, examples::Example};

struct Account {
    example: Example,
    client: Client,
}

/// A client with a cookie, or with a token.
#[derive(Clone)]
enum Login {
    Cookie(String),
    Token(String),
}

impl Account {
    fn start(env: &[(&str, &str)]) -> Self {
        Self {
            example: Example::start("account", env),
            client: Client::new(),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.example.bases[0]);
        self.client
            .request(method, url)
            .header("user-agent", "test/1")
    }

    async fn log_in(&self, password: &str) -> Login {
        let body = json!({ "user": "alice", "password": password });
        let login = self
            .request(Method::POST, "/login")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(login.status(), StatusCode::NO_CONTENT);
        Login::Cookie(cookie_of(&login))
    }

    async fn issue_token(&self, user: &str, password: &str, scopes: &[&str]) -> Login {
        let body = json!({ "user": user, "password": password, "scopes": scopes });
        let login = self
            .request(Method::POST, "/token")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(login.headers()["cache-control"], "no-store");
        let body: Value = login.json().await.unwrap();
        assert_eq!(body["token_type"], "Bearer");
        Login::Token(body["access_token"].as_str().unwrap().to_owned())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        login: &Login,
        body: Option<Value>,
    ) -> Response {
        let request = login.attach(self.request(method, path));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        request.send().await.unwrap()
    }

    async fn status(&self, method: Method, path: &str, login: &Login) -> u16 {
        self.ask(method, path, login, None).await.status().as_u16()
    }

    async fn devices(&self, login: &Login) -> Value {
        let devices = self.ask(Method::GET, "/devices", login, None).await;
        devices.json().await.unwrap()
    }
}

impl Login {
    fn attach(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Cookie(cookie) => request.header("cookie", cookie),
            Self::Token(token) => request.bearer_auth(token),
        }
    }
}

/// The `name=value` of the cookie that a response sets.
fn cookie_of(response: &Response) -> String {
    let set = response.headers()["set-cookie"].to_str().unwrap();
    assert!(
        set.starts_with("__Host-account=") && set.contains("; Secure"),
        "{set}"
    );
    set.split(';').next().unwrap().to_owned()
}

/// A cookie and a token are two devices of one user, each of which can end the other, and both end with the password.
#[tokio::test]
async fn a_user_rules_over_their_devices() {
    let account = Account::start(&[]);
    let (page, script) = (
        account.log_in("wonderland").await,
        account.issue_token("alice", "wonderland", &[]).await,
    );
    let devices = account.devices(&page).await;
    let all = devices["all"].as_array().unwrap();
    assert_eq!(all.len(), 2);
    for device in all {
        assert_eq!(device["metadata"]["user_agent"], "test/1");
        assert_eq!(device["metadata"]["address"], "127.0.0.1");
    }
    assert_eq!(devices["this"], all[0]["id"]);
    // The first request of each has noted its time, in the background.
    while account.devices(&page).await["all"][0]["last_seen_at"].is_null() {}

    // One, then all others.
    let path = format!("/devices/{}", all[1]["id"].as_str().unwrap());
    assert_eq!(account.status(Method::DELETE, &path, &page).await, 204);
    assert_eq!(account.status(Method::GET, "/me", &script).await, 401);
    assert_eq!(account.status(Method::DELETE, &path, &page).await, 404);
    let script = account.issue_token("alice", "wonderland", &[]).await;
    let others = account.ask(Method::DELETE, "/devices", &script, None).await;
    assert_eq!(others.json::<u64>().await.unwrap(), 1);
    // The dead cookie is cleared.
    let refused = account.ask(Method::GET, "/me", &page, None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(
        refused.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .ends_with("; Max-Age=0")
    );

    // The password: a new token here, and nobody else.
    let page = account.log_in("wonderland").await;
    let wrong = json!({ "old": "wonder", "new": "looking glass" });
    let refused = account
        .ask(Method::POST, "/password", &page, Some(wrong))
        .await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let right = json!({ "old": "wonderland", "new": "looking glass" });
    let changed = account
        .ask(Method::POST, "/password", &page, Some(right))
        .await;
    assert_eq!(changed.status(), StatusCode::NO_CONTENT);
    let new = Login::Cookie(cookie_of(&changed));
    assert_eq!(account.status(Method::GET, "/me", &new).await, 200);
    assert_eq!(account.status(Method::GET, "/me", &script).await, 401);
    account.log_in("looking glass").await;
    let all = account
        .ask(Method::POST, "/logout-everywhere", &new, None)
        .await;
    assert_eq!(all.json::<u64>().await.unwrap(), 2);
    assert_eq!(account.status(Method::GET, "/me", &new).await, 401);
}

/// By role, by scope, and by the age of the login.
#[tokio::test]
async fn routes_are_for_those_who_may() {
    let account = Account::start(&[("RECENT_SECONDS", "1")]);
    let queen = account
        .issue_token("queen", "off with their heads", &[])
        .await;
    let alice = account
        .issue_token("alice", "wonderland", &["orders:write", "admin"])
        .await;
    assert_eq!(account.status(Method::GET, "/admin", &queen).await, 200);
    assert_eq!(account.status(Method::GET, "/admin", &alice).await, 403);
    assert_eq!(account.status(Method::POST, "/orders", &alice).await, 200);
    let refused = account.ask(Method::POST, "/orders", &queen, None).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let challenge = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(
        challenge.contains("error=\"insufficient_scope\"") && challenge.contains("orders:write")
    );
    let me: Value = account
        .ask(Method::GET, "/me", &alice, None)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(me["scope"], "orders:write");

    // A second and more after the login.
    loop {
        let me: Value = account
            .ask(Method::GET, "/me", &alice, None)
            .await
            .json()
            .await
            .unwrap();
        if me["seconds_since_login"].as_u64() > Some(1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = account.ask(Method::DELETE, "/account", &alice, None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let challenge = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("max_age=\"1\""), "{challenge}");
    let mut login = alice.clone();
    let closed = loop {
        let password = json!({ "password": "wonderland" });
        let fresh = account
            .ask(Method::POST, "/authenticate", &login, Some(password))
            .await;
        let fresh: Value = fresh.json().await.unwrap();
        login = Login::Token(fresh["access_token"].as_str().unwrap().to_owned());
        match account.status(Method::DELETE, "/account", &login).await {
            // Only a machine that has stood still for a second is too late.
            401 => continue,
            status => break status,
        }
    };
    assert_eq!(closed, 204);
    assert_eq!(account.status(Method::GET, "/me", &alice).await, 401);
}

/// Another site cannot use the cookie; a script's token needs no origin.
#[tokio::test]
async fn other_sites_cannot_use_the_cookie() {
    let account = Account::start(&[]);
    let page = account.log_in("wonderland").await;
    let script = account.issue_token("alice", "wonderland", &[]).await;
    for (login, expected) in [(&page, 403), (&script, 204)] {
        let request = login.attach(account.request(Method::POST, "/logout"));
        let answer = request
            .header("sec-fetch-site", "cross-site")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), expected);
    }
    assert_eq!(account.status(Method::GET, "/me", &page).await, 200);
}

/// The page of a real browser, which keeps the cookie out of reach of its scripts.
#[tokio::test]
async fn the_page_works_in_a_browser() {
    let account = Account::start(&[]);
    let base = &account.example.bases[0];
    let page = format!("{base}/");
    let mut browser = Browser::open(&page).await;
    let until = |condition: &str| {
        format!(
            "while (!({condition})) await new Promise(requestAnimationFrame); return document.body.innerText"
        )
    };
    browser
        .run("document.querySelector('#login button').click(); return ''")
        .await;
    let text = browser
        .run(&until("!document.getElementById('account').hidden"))
        .await;
    assert!(text.contains("logged in as Alice Liddell"), "{text}");
    assert_eq!(browser.run("return document.cookie").await, "");
    let text = browser
        .run(&until(
            "document.querySelectorAll('#devices li').length === 1",
        ))
        .await;
    assert!(
        text.contains("this device") && text.contains("(127.0.0.1)"),
        "{text}"
    );

    // Another device, which the page ends.
    let other = account.log_in("wonderland").await;
    browser.go(&page).await;
    browser
        .run(&until(
            "document.querySelectorAll('#devices li').length === 2",
        ))
        .await;
    browser
        .run("document.querySelector('#devices button').click(); return ''")
        .await;
    browser
        .run(&until(
            "document.querySelectorAll('#devices li').length === 1",
        ))
        .await;
    assert_eq!(account.status(Method::GET, "/me", &other).await, 401);

    // Logged out everywhere by somebody else: the page is thrown out, and its cookie cleared.
    let script = account.issue_token("alice", "wonderland", &[]).await;
    account
        .ask(Method::POST, "/logout-everywhere", &script, None)
        .await;
    browser.go(&page).await;
    let cleared = async {
        while !browser.cookies(base).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let cleared = tokio::time::timeout(Duration::from_secs(60), cleared).await;
    cleared.expect("the page asks who is logged in, which clears the cookie");
    let login = until("!document.getElementById('login').hidden");
    let text = browser.run(&login).await;
    assert!(text.contains("Log in"), "{text}");
}
