//! What a layer can be told, over a real connection.

use std::time::Duration;

use axum::{Router, routing::get};
use reqwest::{
    Client,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower_bearer_session::{
    SessionLayer, User,
    middleware::{ProblemJson, TokenSource},
    test_util::Backend as _,
};

use super::{Profile, Server, builder};
use crate::stores::{Backend, Redis, Server as _, commands_of};

/// Tokens from every place, problem bodies, a realm, and sessions that slide: for a token that is used all the time,
/// Redis sees a refresh now and then.
#[tokio::test]
async fn options_hold_over_http() {
    let redis = Redis::start().await;
    let manager = builder(redis.store().await).build().unwrap();
    let layer = SessionLayer::new(manager.clone())
        .token_sources([
            TokenSource::authorization(),
            TokenSource::cookie("session").unwrap(),
            TokenSource::header("x-session").unwrap(),
            TokenSource::query("access_token").unwrap(),
        ])
        .refresh_below(Duration::from_secs(19))
        .realm("shop")
        .unwrap()
        .on_rejection(ProblemJson);
    let name = async |user: User<Profile>| user.id().to_owned();
    let service = Server::axum(Router::new().route("/me", get(name)).layer(layer)).await;
    let me = format!("http://{}/me", service.address);
    let client = Client::new();

    let refused = client
        .get(&me)
        .header("cookie", "session=x")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()[CONTENT_TYPE], "application/problem+json");
    let challenge = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.starts_with("Bearer realm=\"shop\", error=\"invalid_token\""));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["status"], json!(401));

    // More than the threshold is left: nothing is written.
    let token = manager
        .set_token("al", Duration::from_secs(3600))
        .await
        .unwrap();
    let text = token.expose_secret();
    let from_everywhere = async || {
        for request in [
            client.get(&me).bearer_auth(text),
            client
                .get(&me)
                .header("cookie", format!("a=b; session={text}")),
            client.get(&me).header("x-session", text),
            client.get(format!("{me}?access_token={text}")),
        ] {
            assert_eq!(request.send().await.unwrap().text().await.unwrap(), "al");
        }
    };
    from_everywhere().await;
    let (calls, ()) = commands_of(redis.server(), from_everywhere()).await;
    assert!(!calls.contains_key("evalsha"), "{calls:?}");

    // Less is left: it is renewed for as long as it was last good for.
    let token = manager
        .set_token("al", Duration::from_secs(20))
        .await
        .unwrap();
    let remaining = async || {
        let user = manager.check_token(token.expose_secret()).await.unwrap();
        user.expect("a live session").token_remaining().unwrap()
    };
    let below = Duration::from_secs(19);
    while remaining().await >= below {
        sleep(Duration::from_millis(50)).await;
    }
    let request = client.get(&me).bearer_auth(token.expose_secret());
    assert_eq!(request.send().await.unwrap().status(), 200);
    let renewed = async {
        while remaining().await < below {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), renewed)
        .await
        .expect("a renewal");
}
