//! CVE-2023-20866: what may end up in a log shows no token and no password.

use std::{convert::Infallible, error::Error as _, fmt::Debug};

use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Error, MemoryStore, RedisStore, Session, SessionLayer, Token, TokenManager, TokenOptions, User,
};

use crate::{
    harness::{Flavor, RedisServer},
    stores::patient,
};

const PASSWORD: &str = "correct-horse";

/// Everything that a token goes through, or that comes out of it.
#[tokio::test]
async fn nothing_shows_a_token() {
    let store = MemoryStore::new();
    let builder = TokenManager::builder(store.clone())
        .session_limit(1, tower_bearer_session::OnFull::EvictOldest)
        .load_user(async |id| Ok::<_, Infallible>(Some(id)));
    let builder_text = shown(&builder);
    let manager = builder.build().unwrap();
    let options = TokenOptions::new().metadata("device", "phone");
    let first = manager.set_token_with("al", options.clone()).await.unwrap();
    let issued = manager.set_token_with("al", options.clone()).await.unwrap();
    let (old, new) = (&first.token, &issued.token);
    let user = manager
        .check_token_or_update_user(new.expose_secret(), None)
        .await
        .unwrap();
    let checked = manager.check_token(new.expose_secret()).await.unwrap();
    let layer = SessionLayer::new(manager.clone());

    for text in [
        builder_text,
        shown(&store),
        shown(&manager),
        shown(&options),
        shown(&first),
        shown(&issued),
        shown(&issued.evicted),
        shown(old),
        shown(new),
        shown(new.id()),
        format!("{}", new.id()),
        shown(&user),
        shown(&checked),
        shown(&manager.list_user_tokens("al").await.unwrap()),
        shown(&manager.refresh_users(["al", ""], None).await),
        shown(&layer),
        of_a_request(&layer, new).await,
        // A token where something else belongs, because somebody mixed the two up.
        shown(
            &manager
                .set_token(&new.expose_secret().repeat(3), None)
                .await
                .map(drop),
        ),
        shown(
            &manager
                .list_user_tokens(&new.expose_secret().repeat(3))
                .await,
        ),
        shown(&new.expose_secret().parse::<tower_bearer_session::TokenId>()),
    ] {
        for token in [old, new] {
            let (_, secret) = token.expose_secret().rsplit_once('.').unwrap();
            assert!(!text.contains(secret), "{text}");
        }
    }
}

/// Neither that of the URL nor that of the builder, right or wrong, in any store, builder or error.
#[tokio::test]
async fn nothing_shows_a_password() {
    let server = RedisServer::start_with(Flavor::Redis, &["--requirepass", PASSWORD]).await;
    let port = server.port();
    let in_url = RedisStore::builder(format!("redis://:{PASSWORD}@127.0.0.1:{port}"));
    let given = RedisStore::builder(server.url()).password(PASSWORD);
    let wrong = RedisStore::builder(format!("redis://:wrong-{PASSWORD}@127.0.0.1:{port}"));
    let unknown = RedisStore::builder(server.url())
        .username("app")
        .password(PASSWORD);
    let nowhere = RedisStore::builder(format!("redis://:{PASSWORD}@127.0.0.1:1"));
    let mut texts = Vec::new();
    for builder in [&in_url, &given, &wrong, &unknown, &nowhere] {
        texts.push(shown(builder));
    }
    for works in [in_url, given] {
        let store = patient(works).connect().await.unwrap();
        texts.push(shown(&store));
        texts.push(shown(
            &TokenManager::builder(store.clone())
                .user_type::<String>()
                .build()
                .unwrap(),
        ));
        server
            .cmd(&["CONFIG", "SET", "requirepass", "changed"])
            .await;
        server
            .cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
        let manager = TokenManager::builder(store)
            .user_type::<String>()
            .build()
            .unwrap();
        texts.push(error_text(
            &manager.set_token("al", None).await.unwrap_err(),
        ));
        server
            .cmd(&["CONFIG", "SET", "requirepass", PASSWORD])
            .await;
    }
    for fails in [wrong, unknown, nowhere] {
        texts.push(error_text(&patient(fails).connect().await.unwrap_err()));
    }
    for bad in [
        "redis://:correct-horse@",
        "redis://:correct-horse@h/x",
        "correct-horse",
    ] {
        texts.push(error_text(&RedisStore::connect(bad).await.unwrap_err()));
    }
    for text in texts {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

/// What a handler could log: the session and the user in the extensions, and the request.
async fn of_a_request(layer: &SessionLayer<String>, token: &Token) -> String {
    let handler = service_fn(async |request: http::Request<String>| {
        let session: &Session<String> = request.extensions().get().unwrap();
        let user: &User<String> = request.extensions().get().unwrap();
        let text = shown(session) + &shown(user) + &shown(&request);
        Ok::<_, Infallible>(http::Response::new(text))
    });
    let request = http::Request::builder()
        .header("authorization", format!("Bearer {}", token.expose_secret()))
        .body(String::new())
        .unwrap();
    let response = layer.layer(handler).oneshot(request).await.unwrap();
    assert!(response.status().is_success());
    response.into_body()
}

fn shown(value: &impl Debug) -> String {
    format!("{value:?} {value:#?}")
}

fn error_text(error: &Error) -> String {
    let mut text = format!("{} {error}", shown(error));
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}
