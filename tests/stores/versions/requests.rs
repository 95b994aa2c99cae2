//! Requests, streams and renewals with sessions of the next version.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, Response, header::AUTHORIZATION};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Error, ErrorKind, EventKind, OnFull, Session, SessionLayer, SessionStore, Token, TokenManager,
    store::{InterceptedStore, Operation, StoreCall, StoreInterceptor},
};

use super::NextVersion;
use crate::{
    eventually,
    stores::{HOUR, is_live, limit, listed, log_in, session, token_id},
};

on_next_versions!(
    Redis, Valkey, Cluster, MySql:
    an_opaque_session_expires_like_any_other,
    a_stream_of_an_opaque_session_goes_on_until_it_ends,
    a_stream_of_an_opaque_session_ends_when_it_expires,
    a_renewal_keeps_what_is_unknown,
    a_session_that_becomes_opaque_is_not_renewed,
);

/// How long anything may take that has to happen, on however busy a machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);
/// Long enough for what has to happen before a session expires.
const LIFETIME: Duration = Duration::from_secs(4);

/// A session whose expiry has passed is no fault: it is not live, it does not count, and its id can be used again.
async fn an_opaque_session_expires_like_any_other(backend: &impl NextVersion) {
    let (store, ids) = (backend.store().await, [1, 2, 3].map(token_id));
    log_in(&store, "al", &ids[1]).await;
    let created = store.create("al", &ids[0], &session(LIFETIME), None).await;
    created.unwrap();
    backend.rewrite(&ids[0], false).await;
    assert_eq!(
        store.check("al", &ids[0]).await.unwrap_err().kind(),
        ErrorKind::Store
    );
    eventually("it expires", async || {
        store.check("al", &ids[0]).await.is_ok()
    })
    .await;
    assert!(!is_live(&store, "al", &ids[0]).await);
    assert!(!store.refresh("al", &ids[0], HOUR).await.unwrap());
    assert_eq!(listed(&store, "al").await, [ids[1]]);
    let full = limit(2, OnFull::Reject);
    let created = store.create("al", &ids[2], &session(HOUR), full).await;
    assert_eq!(created.unwrap().evicted, []);
    let anew = log_in(&store, "al", &ids[0]).await;
    assert!(!anew.is_opaque && anew.rotation.is_none());
    assert!(is_live(&store, "al", &ids[0]).await);
    // The number may include sessions that had expired.
    assert!(store.delete_all("al", None).await.unwrap() >= 3);
}

/// A process that cannot interpret the session does not end its streams; a logout does.
async fn a_stream_of_an_opaque_session_goes_on_until_it_ends(backend: &impl NextVersion) {
    let scene = Scene::new(backend).await;
    let token = scene.manager.set_token("al", HOUR).await.unwrap();
    let stream = scene.stream(&token).await;
    backend.rewrite(token.id(), false).await;
    let failures = scene.failed_checks.load(SeqCst);
    eventually("polls", async || {
        scene.failed_checks.load(SeqCst) > failures + 5
    })
    .await;
    assert!(!stream.is_finished());
    let logout = scene.manager.delete_user_token("al", token.id());
    assert!(logout.await.unwrap());
    timeout(LONG_TIMEOUT, stream).await.unwrap().unwrap();
}

async fn a_stream_of_an_opaque_session_ends_when_it_expires(backend: &impl NextVersion) {
    let scene = Scene::new(backend).await;
    let other = scene.manager.set_token("al", HOUR).await.unwrap();
    let token = scene.manager.set_token("al", LIFETIME).await.unwrap();
    let stream = scene.stream(&token).await;
    backend.rewrite(token.id(), false).await;
    timeout(LONG_TIMEOUT, stream).await.unwrap().unwrap();
    assert!(scene.failed_checks.load(SeqCst) > 0);
    let text = token.expose_secret();
    assert!(scene.manager.check_token(text).await.unwrap().is_none());
    let text = other.expose_secret();
    assert!(scene.manager.check_token(text).await.unwrap().is_some());
}

/// A renewal in the background is a refresh: it leaves what only the next version knows.
async fn a_renewal_keeps_what_is_unknown(backend: &impl NextVersion) {
    let scene = Scene::new(backend).await;
    let token = scene.manager.set_token("al", HOUR).await.unwrap();
    backend.rewrite(token.id(), true).await;
    let unknown = backend.unknown_part(token.id()).await;
    scene.make_due().await;
    scene.request(&token).await;
    scene.gate.send_replace(true);
    eventually("the renewal", async || {
        let sessions = scene.manager.list_user_tokens("al").await.unwrap();
        sessions[0].refreshed_at() > sessions[0].created_at()
    })
    .await;
    assert_eq!(backend.unknown_part(token.id()).await, unknown);
}

/// The session was compatible when it was checked, and is not when its renewal comes: that is reported, and nothing is
/// changed.
async fn a_session_that_becomes_opaque_is_not_renewed(backend: &impl NextVersion) {
    let scene = Scene::new(backend).await;
    let token = scene.manager.set_token("al", HOUR).await.unwrap();
    scene.make_due().await;
    scene.request(&token).await;
    backend.rewrite(token.id(), false).await;
    let before = scene.manager.list_user_tokens("al").await.unwrap();
    let unknown = backend.unknown_part(token.id()).await;
    scene.gate.send_replace(true);
    eventually("the renewal", async || {
        scene.failed_updates.load(SeqCst) > 0
    })
    .await;
    assert_eq!(scene.failed_updates.load(SeqCst), 1);
    assert_eq!(backend.unknown_part(token.id()).await, unknown);
    let after = scene.manager.list_user_tokens("al").await.unwrap();
    assert!(after[0].is_opaque());
    assert_eq!(after, before);
}

/// A manager whose updates wait for a gate, and the number of its faults.
struct Scene {
    manager: TokenManager,
    gate: watch::Sender<bool>,
    failed_checks: Arc<AtomicU64>,
    failed_updates: Arc<AtomicU64>,
}

impl Scene {
    async fn new(backend: &impl NextVersion) -> Self {
        let gate = watch::Sender::new(false);
        let store = InterceptedStore::new(backend.store().await, Gate(gate.subscribe()));
        let (failed_checks, failed_updates) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (checks, updates) = (Arc::clone(&failed_checks), Arc::clone(&failed_updates));
        let manager = TokenManager::builder(store)
            .revocation_poll(Duration::from_millis(20))
            .on_event(move |event| {
                if let EventKind::Failed {
                    operation, error, ..
                } = event.kind()
                {
                    assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
                    let failed = if operation == "check" {
                        &checks
                    } else {
                        &updates
                    };
                    failed.fetch_add(1, SeqCst);
                }
            })
            .build();
        Self {
            manager: manager.unwrap(),
            gate,
            failed_checks,
            failed_updates,
        }
    }

    /// Waits until a session that has just begun is due for a renewal.
    async fn make_due(&self) {
        sleep(Duration::from_millis(10)).await;
    }

    /// A request whose session is renewed after it has been answered.
    async fn request(&self, token: &Token) {
        let layer = SessionLayer::new(self.manager.clone());
        handle(layer.refresh_below(HOUR - Duration::from_millis(2)), token).await;
    }

    /// A stream that ends with the session.
    async fn stream(&self, token: &Token) -> JoinHandle<()> {
        let session = handle(SessionLayer::new(self.manager.clone()), token).await;
        tokio::spawn(async move { session.revoked().await })
    }
}

/// The handle that a handler has of a request with this token.
async fn handle(layer: SessionLayer, token: &Token) -> Session {
    let inner = service_fn(async |request: Request<()>| {
        let session: &Session = request.extensions().get().unwrap();
        Ok::<_, Infallible>(Response::new(Some(session.clone())))
    });
    let request = Request::get("/");
    let request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
    let response = layer.layer(inner).oneshot(request.body(()).unwrap()).await;
    response.unwrap().into_body().expect("a live session")
}

/// Holds updates back until it is open.
struct Gate(watch::Receiver<bool>);

impl StoreInterceptor for Gate {
    async fn intercept<T: Send>(
        &self,
        call: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        if call.operation == Operation::Update {
            let mut gate = self.0.clone();
            gate.wait_for(|is_open| *is_open).await.expect("a gate");
        }
        answer.await
    }
}
