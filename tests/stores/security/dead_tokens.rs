//! What a token that is not live costs, and shows.

use std::{cell::Cell, convert::Infallible};

use http::{Request, Response, header::AUTHORIZATION};
use serde::{Deserialize, Deserializer, Serialize};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{MemoryStore, SessionLayer, TokenManager};

use crate::stores::forged;

thread_local! {
    static DECODED: Cell<usize> = const { Cell::new(0) };
}

/// Counts how often it is decoded, on this thread.
#[derive(Serialize)]
struct Counted;

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<T: Deserializer<'de>>(deserializer: T) -> Result<Self, T::Error> {
        DECODED.set(DECODED.get() + 1);
        <()>::deserialize(deserializer).map(|()| Self)
    }
}

/// A token that is not live does not have the cached user decoded: neither its work nor its time tells whether there
/// is one.
#[tokio::test]
async fn a_dead_token_decodes_no_user() {
    let builder = TokenManager::builder(MemoryStore::new());
    let manager = builder
        .load_user(async |_| Ok::<_, Infallible>(Some(Counted)))
        .build()
        .unwrap();
    manager.add_user("al", None).await.unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let service = SessionLayer::new(manager.clone()).layer(inner);
    let before = DECODED.get();
    for n in 0..100 {
        let forged = forged("al", n);
        let user = manager.check_token_or_update_user(&forged, None).await;
        assert!(user.unwrap().is_none());
        let request = Request::get("/").header(AUTHORIZATION, format!("Bearer {forged}"));
        let request = request.body(()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 401);
    }
    assert_eq!(DECODED.get(), before);
    let user = manager
        .check_token_or_update_user(token.expose_secret(), None)
        .await;
    assert!(user.unwrap().is_some());
    assert_eq!(DECODED.get(), before + 1);
}
