//! What a handler learns of the session of its request, and changes of it, on every store.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, header::AUTHORIZATION};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{EventKind, Session, SessionLayer, Token, TokenManager, TokenOptions};

use crate::stores::{Backend, DAY, HOUR, on_every_store};

mod metadata;
mod scopes;

on_every_store!(
    a_handler_knows_the_times_of_its_session,
    a_handler_knows_the_metadata_of_its_session,
    a_session_is_authenticated_again,
);

/// The session that the handler of a request with this token gets.
async fn session_of<D>(manager: &TokenManager<D>, token: &Token) -> Option<Session<D>>
where
    D: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let inner = service_fn(async |request: Request<()>| {
        let session = request.extensions().get::<Session<D>>();
        Ok::<_, Infallible>(Response::new(session.cloned()))
    });
    let service = SessionLayer::new(manager.clone()).optional().layer(inner);
    let bearer = format!("Bearer {}", token.expose_secret());
    let request = Request::get("/").header(AUTHORIZATION, bearer);
    let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
    response.into_body()
}

async fn manager(backend: &impl Backend) -> TokenManager {
    backend.manager_builder().await.build().unwrap()
}

async fn a_handler_knows_the_times_of_its_session(backend: &impl Backend) {
    let manager = manager(backend).await;
    let options = TokenOptions::new().ttl(HOUR).max_lifetime(DAY);
    let issued = manager.set_token_with("al", options).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(
        manager
            .refresh_token(issued.token.expose_secret(), 2 * HOUR)
            .await
            .unwrap()
    );
    let session = session_of(&manager, &issued.token).await.unwrap();
    let [listed] = &manager.list_user_tokens("al").await.unwrap()[..] else {
        panic!("one session");
    };
    assert_eq!(session.created_at(), listed.created_at());
    assert_eq!(session.created_at(), issued.issued_at);
    assert_eq!(session.authenticated_at(), listed.created_at());
    assert_eq!(session.expires_at(), listed.refreshed_at() + 2 * HOUR);
    assert_eq!(session.ends_at(), Some(issued.issued_at + DAY));
    assert_eq!(session.ends_at(), issued.ends_at);
    assert!(session.age() >= Duration::from_millis(20) && session.age() < HOUR);
    assert_eq!(session.authentication_age(), session.age());

    let endless = manager.set_token("al", HOUR).await.unwrap();
    let session = session_of(&manager, &endless).await.unwrap();
    assert_eq!(session.ends_at(), None);
    assert_eq!(session.metadata().len(), 0);
    assert!(session.scopes().is_empty());
}

async fn a_handler_knows_the_metadata_of_its_session(backend: &impl Backend) {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Device {
        name: String,
        version: Option<u32>,
    }

    let manager = manager(backend).await;
    let options = TokenOptions::new()
        .metadata("name", "phone")
        .scopes(["read"]);
    let phone = manager.set_token_with("al", options).await.unwrap().token;
    let other = TokenOptions::new().metadata("name", 7);
    let other = manager.set_token_with("al", other).await.unwrap().token;
    let session = session_of(&manager, &phone).await.unwrap();
    assert_eq!(session.metadata()["name"], "phone");
    assert_eq!(session.metadata().len(), 1);
    let device: Device = session.metadata_as().unwrap();
    let name = "phone".to_owned();
    assert_eq!(
        device,
        Device {
            name,
            version: None
        }
    );
    let session = session_of(&manager, &other).await.unwrap();
    let error = session.metadata_as::<Device>().unwrap_err();
    assert_eq!(error.kind(), tower_bearer_session::ErrorKind::Serialize);
    // It names the type, and not what is in the metadata.
    assert!(error.to_string().ends_with("Device"), "{error}");
    assert!(!format!("{error:?}").contains('7'), "{error:?}");
}

async fn a_session_is_authenticated_again(backend: &impl Backend) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let builder = backend.manager_builder().await.on_event(move |event| {
        if let EventKind::Authenticated {
            user_id, token_id, ..
        } = event.kind()
        {
            let told = (user_id.to_string(), *token_id);
            log.lock().unwrap().push(told);
        }
    });
    let manager: TokenManager = builder.build().unwrap();
    let token = manager.set_token("al", HOUR).await.unwrap();
    let before = session_of(&manager, &token).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(before.mark_authenticated().await.unwrap());
    let expected = ("al".to_owned(), *token.id());
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [expected]);
    let after = session_of(&manager, &token).await.unwrap();
    assert!(before.created_at() < after.authenticated_at());
    assert!(after.authentication_age() < after.age());
    assert_eq!(after.created_at(), before.created_at());
    assert_eq!(after.expires_at(), before.expires_at());

    // Not by a token that was replaced, nor after the end of the session.
    let options = tower_bearer_session::ReplaceOptions::new().grace(HOUR);
    let replaced = after.replace_token(options).await.unwrap();
    let tower_bearer_session::Replacement::Replaced { issued, .. } = replaced else {
        panic!("the token is current");
    };
    assert!(!after.mark_authenticated().await.unwrap());
    let new = session_of(&manager, &issued.token).await.unwrap();
    assert_eq!(new.authenticated_at(), after.authenticated_at());
    assert!(new.mark_authenticated().await.unwrap());
    assert!(new.log_out().await.unwrap());
    assert!(!new.mark_authenticated().await.unwrap());
    assert_eq!(manager.list_user_tokens("al").await.unwrap(), []);
}
