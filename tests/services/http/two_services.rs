use reqwest::Method;
use tower_bearer_session::{OnFull, RedisStore};

use super::{Server, app, builder};
use crate::harness::{Flavor, RedisServer};

/// Two services over one Redis: what one does, the other knows at once.
#[tokio::test]
async fn sessions_are_shared_over_redis() {
    sessions_are_shared(Flavor::Redis).await;
}

/// The same over Valkey.
#[tokio::test]
async fn sessions_are_shared_over_valkey() {
    sessions_are_shared(Flavor::Valkey).await;
}

async fn sessions_are_shared(flavor: Flavor) {
    let redis = RedisServer::start(flavor).await;
    let (shop, blog) = (service(&redis).await, service(&redis).await);
    // Every answer is checked at once, many times: "at once" has no exceptions.
    for _ in 0..50 {
        let at_shop = shop.login("al", "phone").await;
        let at_blog = blog
            .client()
            .with_token(at_shop.token.as_ref().expect("a token"));
        assert_eq!(at_blog.json(Method::GET, "/me").await["id"], "al");
        assert_eq!(at_blog.json(Method::POST, "/logout").await, true);
        assert_eq!(at_shop.status("/me").await, 401);
    }
    let phone = shop.login("al", "phone").await;
    let laptop = blog.login("al", "laptop").await;
    let sessions = phone.json(Method::GET, "/sessions").await;
    assert_eq!(sessions.as_array().map(Vec::len), Some(2));
    assert_eq!(laptop.json(Method::POST, "/logout/others").await, 1);
    assert_eq!(phone.status("/me").await, 401);
    assert_eq!(laptop.status("/me").await, 200);
    assert_eq!(laptop.json(Method::POST, "/logout/everywhere").await, 1);
    assert_eq!(laptop.status("/me").await, 401);
}

/// A session limit holds across services, and the answer names what was evicted.
#[tokio::test]
async fn the_session_limit_is_shared() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let limited = async || {
        let store = RedisStore::connect(redis.url()).await.unwrap();
        let manager = builder(store).session_limit(2, OnFull::EvictOldest);
        Server::axum(app(manager.build().unwrap())).await
    };
    let (shop, blog) = (limited().await, limited().await);
    let first = shop.login("al", "1").await;
    let second = blog.login("al", "2").await;
    let first_id = first.json(Method::GET, "/me").await["token_id"].clone();
    let login = serde_json::json!({"user": "al"});
    let third = shop.client().post("/login", &login).await;
    let third: serde_json::Value = third.json().await.unwrap();
    assert_eq!(third["evicted"], serde_json::json!([first_id]));
    assert_eq!(first.status("/me").await, 401);
    assert_eq!(second.status("/me").await, 200);
}

async fn service(redis: &RedisServer) -> Server {
    let store = RedisStore::connect(redis.url()).await.expect("a store");
    let manager = builder(store).build().expect("a valid configuration");
    Server::axum(app(manager)).await
}
