use std::{future::pending, time::Duration};

use axum::{Router, routing::get};
use reqwest::{Method, header::WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tower_bearer_session::{MemoryStore, SessionLayer, User};

use super::{Client, Profile, Server, app, builder};

/// Log in, be known, log out, be unknown.
#[tokio::test]
async fn a_login_lasts_until_the_logout() {
    let server = server().await;
    let client = server.login("al", "phone").await;
    let me = client.json(Method::GET, "/me").await;
    assert_eq!(me["id"], "al");
    assert_eq!(me["detail"], json!({"name": "AL"}));
    assert_eq!(me["token_id"].as_str().unwrap().len(), 22);

    assert_eq!(client.json(Method::POST, "/logout").await, true);
    let refused = client.get("/me").await;
    assert_eq!(refused.status(), 401);
    let challenge = &refused.headers()[WWW_AUTHENTICATE];
    assert!(challenge.to_str().unwrap().contains("invalid_token"));
    // The second time it is the layer that refuses.
    assert_eq!(client.post("/logout", &Value::Null).await.status(), 401);
}

/// Without a token a required layer refuses, and an optional one serves strangers.
#[tokio::test]
async fn strangers_see_public_routes_only() {
    let server = server().await;
    let stranger = server.client();
    assert_eq!(text(&stranger, "/").await, "hello stranger");
    assert_eq!(
        text(&server.login("al", "phone").await, "/").await,
        "hello al"
    );
    // A token that is no good is no reason to refuse a public page.
    assert_eq!(text(&stranger.with_token("x"), "/").await, "hello stranger");
    for path in ["/me", "/strict/session", "/strict/user"] {
        for (client, code) in [(stranger.clone(), false), (stranger.with_token("x"), true)] {
            let refused = client.get(path).await;
            assert_eq!(refused.status(), 401, "{path}");
            let challenge = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap();
            assert_eq!(challenge.contains("invalid_token"), code, "{path}");
        }
    }
    let client = server.login("al", "phone").await;
    assert_eq!(text(&client, "/strict/user").await, "AL");
    assert_eq!(client.status("/strict/session").await, 200);
}

/// A user sees all devices, and ends one of them without harm to the others.
#[tokio::test]
async fn one_device_is_revoked() {
    let server = server().await;
    let phone = server.login("al", "phone").await;
    let laptop = server.login("al", "laptop").await;
    let stranger = server.login("bo", "phone").await;
    let sessions = laptop.json(Method::GET, "/sessions").await;
    let devices: Vec<_> = sessions.as_array().unwrap().iter().collect();
    assert_eq!(devices.len(), 2);
    let find = |name: &str| *devices.iter().find(|it| it["device"] == name).unwrap();
    assert_eq!(find("laptop")["current"], true);
    assert_eq!(find("phone")["current"], false);

    let path = format!("/sessions/{}", find("phone")["id"].as_str().unwrap());
    // The handle opens nothing, least of all to somebody else.
    let id = find("phone")["id"].as_str().unwrap();
    assert_eq!(server.client().with_token(id).status("/me").await, 401);
    assert_eq!(stranger.delete(&path).await.status(), 404);
    assert_eq!(phone.status("/me").await, 200);
    assert_eq!(laptop.delete(&path).await.status(), 204);
    assert_eq!(phone.status("/me").await, 401);
    assert_eq!(laptop.delete(&path).await.status(), 404);
    assert_eq!(laptop.status("/me").await, 200);
    assert_eq!(stranger.status("/me").await, 200);
    assert_eq!(laptop.delete("/sessions/nonsense").await.status(), 400);
}

/// All others go, then all.
#[tokio::test]
async fn others_and_all_devices_are_logged_out() {
    let server = server().await;
    let stranger = server.login("bo", "phone").await;
    let [a, b, c] = ["a", "b", "c"].map(|device| server.login("al", device));
    let (a, b, c) = (a.await, b.await, c.await);
    assert_eq!(a.json(Method::POST, "/logout/others").await, 2);
    for (client, status) in [(&a, 200), (&b, 401), (&c, 401), (&stranger, 200)] {
        assert_eq!(client.status("/me").await, status);
    }
    let b = server.login("al", "b").await;
    assert_eq!(b.json(Method::POST, "/logout/everywhere").await, 2);
    for (client, status) in [(&a, 401), (&b, 401), (&stranger, 200)] {
        assert_eq!(client.status("/me").await, status);
    }
}

/// A refresh moves the end of the session.
#[tokio::test]
async fn a_session_is_refreshed() {
    let server = server().await;
    let login = json!({"user": "al", "seconds": 60});
    let answer = server.client().post("/login", &login).await;
    let answer: Value = answer.json().await.unwrap();
    let token = answer["token"].as_str().unwrap();
    let client = server.client().with_token(token);
    let remaining = async || client.json(Method::GET, "/me").await["remaining"].as_u64();
    assert!(remaining().await <= Some(60));
    assert_eq!(client.json(Method::POST, "/refresh").await, true);
    assert!(remaining().await > Some(900));
    assert!(remaining().await <= Some(1000));
}

/// A handler that panics harms its own connection only, one that hangs its own request only.
#[tokio::test]
async fn a_broken_handler_does_no_harm() {
    let manager = builder(MemoryStore::new()).build().unwrap();
    let layer = SessionLayer::new(manager.clone());
    let broken = Router::new()
        .route("/panic", get(panics))
        .route("/hang", get(pending::<String>))
        .layer(layer);
    let server = Server::axum(app(manager).merge(broken)).await;
    let client = server.login("al", "phone").await;
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.try_send(Method::GET, "/hang", None).await }
    });
    for _ in 0..3 {
        let panicked = client.try_send(Method::GET, "/panic", None).await;
        assert!(panicked.is_err_and(|error| !error.is_timeout()));
        assert_eq!(client.status("/me").await, 200);
    }
    assert!(!hanging.is_finished());
    hanging.abort();
    assert_eq!(client.status("/me").await, 200);
    assert_eq!(client.json(Method::POST, "/logout").await, true);
    assert_eq!(client.status("/panic").await, 401);
}

/// A token that expires while its client waits is refused from then on.
#[tokio::test]
async fn an_expired_token_is_refused() {
    let manager = builder(MemoryStore::new()).build().unwrap();
    let server = Server::axum(app(manager.clone())).await;
    let ttl = Duration::from_millis(300);
    let token = manager.set_token("al", ttl).await.unwrap();
    let client = server.client().with_token(token.expose_secret());
    tokio::time::sleep(ttl).await;
    assert_eq!(client.status("/me").await, 401);
    assert_eq!(text(&client, "/").await, "hello stranger");
}

async fn panics(user: User<Profile>) -> String {
    panic!("on purpose, for {}", user.id());
}

async fn server() -> Server {
    let manager = builder(MemoryStore::new()).build();
    Server::axum(app(manager.expect("a valid configuration"))).await
}

async fn text(client: &Client, path: &str) -> String {
    let response = client.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.expect("text")
}
