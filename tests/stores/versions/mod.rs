//! A service of this version beside one of the next, which the tests play: it writes sessions that this version may
//! can interpret, although they have parts that it does not know, and sessions that it cannot interpret.

use http::{Request, Response, header::AUTHORIZATION};
use std::convert::Infallible;
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Error, ErrorKind, OnFull, ReplaceOptions, SessionLayer, SessionStore, TokenId, TokenInfo,
    store::SessionChange,
};

use crate::stores::{
    Backend, DAY, HOUR, is_live, limit, listed, live_session, log_in, log_in_apart, replacement,
    session, token_id,
};

/// Tables or keys in which the next version has written.
trait NextVersion: Backend {
    /// Lets the next version write the session of "al", in a way that this one can interpret or must not.
    async fn rewrite(&self, id: &TokenId, is_compatible: bool);

    /// What the next version alone knows of the session.
    async fn unknown_part(&self, id: &TokenId) -> Vec<u8>;
}

macro_rules! on_next_versions {
    ($($backend:ident),*: $($case:ident),* $(,)?) => {
        on_next_versions!(@ [$($backend),*] [$($case),*]);
    };
    (@ [$backend:ident $(, $others:ident)*] $cases:tt) => {
        on_next_versions!(@@ $backend $cases);
        on_next_versions!(@ [$($others),*] $cases);
    };
    (@ [] $cases:tt) => {};
    (@@ Redis [$($case:ident),*]) => {
        mod on_redis { crate::stores::cases!(Redis: $($case),*); }
    };
    (@@ Valkey [$($case:ident),*]) => {
        mod on_valkey { crate::stores::cases!(Valkey: $($case),*); }
    };
    (@@ Cluster [$($case:ident),*]) => {
        mod on_cluster { crate::stores::cases!(Cluster: $($case),*); }
    };
    (@@ MySql [$($case:ident),*]) => {
        mod on_mysql { crate::stores::cases!(MySql: $($case),*); }
    };
}

mod mysql;
mod redis;
mod requests;

on_next_versions!(
    Redis, Valkey, Cluster, MySql:
    a_compatible_session_works_and_keeps_what_is_unknown,
    an_opaque_session_is_a_fault,
    a_request_with_an_opaque_session_is_a_503,
    an_opaque_session_counts_for_limits,
    an_opaque_session_is_evicted_in_its_turn,
    an_opaque_session_is_listed_and_can_be_logged_out,
    an_opaque_session_is_kept_when_the_others_end,
);

/// Refreshes, replacements and changes by this version leave what only the next one knows.
async fn a_compatible_session_works_and_keeps_what_is_unknown(backend: &impl NextVersion) {
    let (store, id) = (backend.store().await, token_id(1));
    log_in(&store, "al", &id).await;
    backend.rewrite(&id, true).await;
    let unknown = backend.unknown_part(&id).await;
    assert!(!unknown.is_empty());
    let before = live_session(&store, "al", &id).await;
    assert!(!before.is_opaque);
    let mut all = replacement(id, token_id(2), HOUR);
    all.ttl = Some(DAY);
    all.metadata = Some("{}".into());
    all.authenticated = true;
    all.end_others = true;
    for change in [SessionChange::refresh(DAY), all] {
        let updated = store.update("al", &id, &change).await.unwrap();
        assert!(updated.is_some(), "{change:?}");
        assert_eq!(backend.unknown_part(&id).await, unknown, "{change:?}");
    }
    store.delete_all("al", Some(&id)).await.unwrap();
    assert_eq!(backend.unknown_part(&id).await, unknown);
    let after = live_session(&store, "al", &id).await;
    assert_eq!(after.current_token(&id), &token_id(2));
    assert_eq!(after.created_at, before.created_at);
}

/// Nothing says that it is not live, and nothing changes it.
async fn an_opaque_session_is_a_fault(backend: &impl NextVersion) {
    let (store, id) = (backend.store().await, token_id(1));
    log_in(&store, "al", &id).await;
    backend.rewrite(&id, false).await;
    let unknown = backend.unknown_part(&id).await;
    let is_fault = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
        assert!(error.to_string().contains("newer version"), "{error}");
    };
    is_fault(store.check("al", &id).await.unwrap_err());
    is_fault(store.refresh("al", &id, DAY).await.unwrap_err());
    for limit in [None, limit(5, OnFull::Reject)] {
        let again = store.create("al", &id, &session(HOUR), limit).await;
        is_fault(again.unwrap_err());
    }
    let mut change = replacement(id, token_id(2), HOUR);
    is_fault(store.update("al", &id, &change).await.unwrap_err());
    change.end_others = true;
    is_fault(store.update("al", &id, &change).await.unwrap_err());
    assert_eq!(backend.unknown_part(&id).await, unknown);
    // Others are not concerned.
    log_in(&store, "al", &token_id(3)).await;
    assert!(is_live(&store, "al", &token_id(3)).await);
    store.ping().await.unwrap();
}

async fn a_request_with_an_opaque_session_is_a_503(backend: &impl NextVersion) {
    let manager = backend.manager().await;
    let token = manager.set_token("al", HOUR).await.unwrap();
    backend.rewrite(token.id(), false).await;
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    for layer in [
        SessionLayer::new(manager.clone()),
        SessionLayer::new(manager.clone()).optional(),
    ] {
        let request = Request::get("/");
        let request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        let response = layer.layer(inner).oneshot(request.body(()).unwrap()).await;
        assert_eq!(response.unwrap().status(), 503);
    }
    let list = manager.list_user_tokens("al").await.unwrap();
    assert!(list.iter().all(TokenInfo::is_opaque));
    let replacing = manager.replace_token(token.expose_secret(), ReplaceOptions::new());
    assert_eq!(replacing.await.unwrap_err().kind(), ErrorKind::Store);
    assert!(manager.delete_token(token.expose_secret()).await.unwrap());
    assert_eq!(manager.list_user_tokens("al").await.unwrap(), []);
}

async fn an_opaque_session_counts_for_limits(backend: &impl NextVersion) {
    let (store, ids) = (backend.store().await, [1, 2, 3].map(token_id));
    log_in_apart(&store, "al", &ids[..2]).await;
    backend.rewrite(&ids[0], false).await;
    let full = limit(2, OnFull::Reject);
    let refused = store.create("al", &ids[2], &session(HOUR), full).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::SessionLimit);
    assert_eq!(listed(&store, "al").await, ids[..2]);
}

/// Whatever the policy: its start and last refresh are known.
async fn an_opaque_session_is_evicted_in_its_turn(backend: &impl NextVersion) {
    let store = backend.store().await;
    for on_full in [OnFull::EvictOldest, OnFull::EvictLeastRecentlyRefreshed] {
        let ids = [1, 2, 3].map(token_id);
        log_in_apart(&store, "al", &ids[..2]).await;
        backend.rewrite(&ids[0], false).await;
        let listed_before = store.list("al").await.unwrap();
        let (new, limit) = (session(HOUR), limit(2, on_full));
        let created = store.create("al", &ids[2], &new, limit).await;
        assert_eq!(created.unwrap().evicted, listed_before[..1]);
        assert_eq!(listed(&store, "al").await, ids[1..]);
        store.delete_all("al", None).await.unwrap();
    }
}

/// It is listed with the times that every version tells.
async fn an_opaque_session_is_listed_and_can_be_logged_out(backend: &impl NextVersion) {
    let (store, id) = (backend.store().await, token_id(1));
    let created = log_in(&store, "al", &id).await;
    backend.rewrite(&id, false).await;
    let list = store.list("al").await.unwrap();
    let mut expected = created;
    expected.is_opaque = true;
    assert_eq!(list, [(id, expected)]);
    assert!(store.delete("al", &id).await.unwrap());
    assert_eq!(store.list("al").await.unwrap(), []);
    assert!(!is_live(&store, "al", &id).await);
}

/// A logout of all others keeps it, and a logout of all ends it.
async fn an_opaque_session_is_kept_when_the_others_end(backend: &impl NextVersion) {
    let (store, ids) = (backend.store().await, [1, 2, 3].map(token_id));
    log_in_apart(&store, "al", &ids).await;
    backend.rewrite(&ids[1], false).await;
    let unknown = backend.unknown_part(&ids[1]).await;
    assert_eq!(store.delete_all("al", Some(&ids[1])).await.unwrap(), 2);
    assert_eq!(listed(&store, "al").await, [ids[1]]);
    assert_eq!(backend.unknown_part(&ids[1]).await, unknown);
    assert_eq!(store.delete_all("al", None).await.unwrap(), 1);
    assert_eq!(listed(&store, "al").await, []);
}
