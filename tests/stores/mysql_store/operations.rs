//! Every operation of a store, to be run while something is missing.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::SystemTime,
};

use tower_bearer_session::{
    Error, MySqlStore, SessionStore,
    store::{PutMode, SessionChange, SessionRecord},
};

use crate::stores::{HOUR, session, token_id};

/// Runs every operation of a store for a new user; returns their names and outcomes.
///
/// No operation depends on the success of another one.
pub(super) async fn operations(store: &MySqlStore) -> Vec<(&'static str, Result<(), Error>)> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let user = &*format!("user{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (id, new, value) = (&token_id(1), session(HOUR), b"value");
    let refresh = SessionChange::refresh(HOUR);
    let mut refresh_version = refresh.clone();
    refresh_version.if_version = Some(SessionRecord::begin(&new, SystemTime::now()).version());
    let put = |mode| store.put_user(user, value, HOUR, mode);
    vec![
        ("create", store.create(user, id, &new, None).await.map(drop)),
        ("check", store.check(user, id).await.map(drop)),
        ("list", store.list(user).await.map(drop)),
        ("list_users", store.list_users(None).await.map(drop)),
        ("update", store.update(user, id, &refresh).await.map(drop)),
        (
            "update a version",
            store.update(user, id, &refresh_version).await.map(drop),
        ),
        ("delete", store.delete(user, id).await.map(drop)),
        (
            "delete_all but one",
            store.delete_all(user, Some(id)).await.map(drop),
        ),
        ("delete_all", store.delete_all(user, None).await.map(drop)),
        ("get_user", store.get_user(user).await.map(drop)),
        (
            "put_user if there is none",
            put(PutMode::IfUnchanged(None)).await.map(drop),
        ),
        (
            "put_user if unchanged",
            put(PutMode::IfUnchanged(Some(value))).await.map(drop),
        ),
        ("put_user", put(PutMode::Replace).await.map(drop)),
        ("ping", store.ping().await),
    ]
}

pub(super) async fn assert_all_succeed(store: &MySqlStore) {
    for (operation, outcome) in operations(store).await {
        outcome.expect(operation);
    }
}
