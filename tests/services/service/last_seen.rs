//! When a session was last used, as its layer notes it.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response};
use tokio::{task::yield_now, time::advance};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    ErrorKind, ReplaceOptions, Replacement, Session, SessionLayer, Token, TokenInfo, TokenManager,
    TokenOptions,
};

use super::{Mood, Spy, bearer, request};

const SECOND: Duration = Duration::from_secs(1);

struct Seen {
    spy: Spy,
    manager: TokenManager,
    layer: SessionLayer,
}

impl Seen {
    /// Under a layer that notes the time once a minute.
    fn new(configure: impl FnOnce(SessionLayer) -> SessionLayer) -> Self {
        let spy = Spy::default();
        let manager: TokenManager = TokenManager::new(spy.store());
        let layer = SessionLayer::new(manager.clone()).note_last_seen(60 * SECOND);
        Self {
            spy,
            manager,
            layer: configure(layer),
        }
    }

    /// The number of writes of a request.
    async fn ask(&self, token: &Token) -> u64 {
        self.spy.refreshes();
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let service = self.layer.layer(inner);
        service.oneshot(request([bearer(token)])).await.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        self.spy.refreshes()
    }

    async fn replace(&self, token: &Token, options: ReplaceOptions) {
        let replaced = self.manager.replace_token(token.expose_secret(), options);
        assert!(matches!(replaced.await, Ok(Replacement::Replaced { .. })));
    }

    async fn info(&self) -> TokenInfo {
        let mut listed = self.manager.list_user_tokens("al").await.unwrap();
        listed.pop().unwrap()
    }

    /// How long ago the session was last seen.
    async fn age(&self, token: &Token) -> Option<Duration> {
        let inner = service_fn(async |request: Request<()>| {
            let session: &Session = request.extensions().get().unwrap();
            let seen_at = session.last_seen_at();
            let now = session.created_at() + session.age();
            Ok::<_, Infallible>(Response::new(
                seen_at.map(|at| now.duration_since(at).unwrap()),
            ))
        });
        let service = SessionLayer::new(self.manager.clone()).layer(inner);
        let response = service.oneshot(request([bearer(token)])).await.unwrap();
        response.into_body()
    }
}

fn is_about(age: Option<Duration>, expected: Duration) -> bool {
    age.is_some_and(|age| expected <= age && age < expected + 2 * SECOND)
}

#[tokio::test(start_paused = true)]
async fn the_time_is_noted_once_per_interval() {
    let seen = Seen::new(|layer| layer);
    let options = TokenOptions::new()
        .metadata("name", "phone")
        .scopes(["read"]);
    let token = seen
        .manager
        .set_token_with("al", options)
        .await
        .unwrap()
        .token;
    let before = seen.info().await;
    assert_eq!(before.last_seen_at(), None);
    assert_eq!(seen.ask(&token).await, 1);
    assert!(is_about(seen.age(&token).await, Duration::ZERO));
    for _ in 0..5 {
        advance(10 * SECOND).await;
        assert_eq!(seen.ask(&token).await, 0);
    }
    assert!(is_about(seen.age(&token).await, 50 * SECOND));
    advance(10 * SECOND).await;
    assert_eq!(seen.ask(&token).await, 1);
    assert!(is_about(seen.age(&token).await, Duration::ZERO));

    // Nothing else of the session changes: neither its expiry, nor what else is in its metadata.
    let after = seen.info().await;
    assert_eq!(after.expires_at(), before.expires_at());
    assert_eq!(after.refreshed_at(), before.refreshed_at());
    assert_eq!(after.metadata(), before.metadata());
    assert_eq!(after.scopes(), before.scopes());
    let json = serde_json::to_value(&after).unwrap();
    assert!(json["last_seen_at"].is_u64(), "{json}");
}

/// Renewal and time are one write.
#[tokio::test(start_paused = true)]
async fn a_renewal_notes_the_time_in_the_same_write() {
    let seen = Seen::new(|layer| layer.refresh_below(90 * SECOND));
    let options = TokenOptions::new().ttl(100 * SECOND);
    let token = seen
        .manager
        .set_token_with("al", options)
        .await
        .unwrap()
        .token;
    assert_eq!(seen.ask(&token).await, 1);
    let first = seen.info().await;
    advance(70 * SECOND).await;
    assert_eq!(seen.ask(&token).await, 1);
    let second = seen.info().await;
    assert!(first.last_seen_at() < second.last_seen_at());
    assert_eq!(second.expires_at(), second.refreshed_at() + 100 * SECOND);
    assert!(first.refreshed_at() < second.refreshed_at());
}

/// A change of the metadata and a replacement keep the time, and the next request after a failure notes it.
#[tokio::test(start_paused = true)]
async fn the_time_stays_until_the_next_one() {
    let seen = Seen::new(|layer| layer);
    let token = seen.manager.set_token("al", None).await.unwrap();
    seen.spy.set(Mood::Works);
    assert_eq!(seen.ask(&token).await, 1);
    let noted = seen.info().await.last_seen_at();
    let changed = seen
        .manager
        .update_token_metadata("al", token.id(), |metadata| {
            assert!(metadata.is_empty());
            metadata.insert("name".into(), "x".repeat(1000).into());
        });
    changed.await.unwrap().unwrap();
    assert_eq!(seen.info().await.last_seen_at(), noted);
    // Also in metadata of the maximum size.
    advance(61 * SECOND).await;
    assert_eq!(seen.ask(&token).await, 1);
    let later = seen.info().await;
    assert!(noted < later.last_seen_at());
    assert_eq!(later.metadata()["name"], "x".repeat(1000));
    let options = ReplaceOptions::new().metadata("name", "phone");
    seen.replace(&token, options).await;
    assert_eq!(seen.info().await.last_seen_at(), later.last_seen_at());
    for reserved in ["seen_at", "scope"] {
        let options = TokenOptions::new().metadata(reserved, 1);
        let error = seen
            .manager
            .set_token_with("al", options)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

/// The note does not overwrite what the handler of the same request has changed.
#[tokio::test(start_paused = true)]
async fn a_change_by_the_handler_stands() {
    let seen = Seen::new(|layer| layer);
    let token = seen.manager.set_token("al", None).await.unwrap();
    let inner = service_fn(async |request: Request<()>| {
        let session: &Session = request.extensions().get().unwrap();
        let changed = session.update_metadata(|metadata| {
            metadata.insert("name".into(), "phone".into());
        });
        changed.await.unwrap().unwrap();
        Ok::<_, Infallible>(Response::new(()))
    });
    let service = seen.layer.layer(inner);
    service.oneshot(request([bearer(&token)])).await.unwrap();
    for _ in 0..10 {
        yield_now().await;
    }
    assert_eq!(seen.info().await.metadata()["name"], "phone");
    // If it lost, the next request notes the time.
    seen.ask(&token).await;
    let info = seen.info().await;
    assert_eq!(info.metadata()["name"], "phone");
    assert!(info.last_seen_at().is_some());
}

/// A request with a replaced token, in its grace, notes nothing.
#[tokio::test(start_paused = true)]
async fn a_replaced_token_notes_nothing() {
    let seen = Seen::new(|layer| layer);
    let token = seen.manager.set_token("al", None).await.unwrap();
    let options = ReplaceOptions::new().grace(600 * SECOND);
    seen.replace(&token, options).await;
    assert_eq!(seen.ask(&token).await, 0);
    assert_eq!(seen.info().await.last_seen_at(), None);
}
