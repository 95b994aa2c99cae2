//! What is larger than a server may accept.

use bytes::Bytes;
use tokio::task::JoinSet;
use tower_bearer_session::{
    ErrorKind, SessionStore,
    store::{MAX_VALUE_LEN, PutMode},
};

use crate::stores::{HOUR, Server, is_live, live, log_in, on_every_server, session, token_id};

on_every_server!(
    a_value_that_is_too_large_is_an_error_of_its_caller_alone,
    the_largest_value_fits_every_server,
);

/// It is not sent at all: the server would close the connection, and with it the requests of everybody.
async fn a_value_that_is_too_large_is_an_error_of_its_caller_alone(backend: &impl Server) {
    let server = backend.server();
    let set = ["CONFIG", "SET", "proto-max-bulk-len", "1mb"];
    server.cmd(&set).await;
    let (store, id) = (backend.store().await, token_id(1));
    log_in(&store, "bo", &id).await;
    let mut checks = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        checks.spawn(async move {
            for _ in 0..200 {
                assert!(is_live(&store, "bo", &id).await);
            }
        });
    }
    let large = vec![b'x'; MAX_VALUE_LEN + 1];
    for mode in [
        PutMode::Replace,
        PutMode::IfUnchanged(None),
        PutMode::IfUnchanged(Some(b"seen")),
    ] {
        let error = store.put_user("al", &large, HOUR, mode).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("1048577") && text.contains("1048576"),
            "{text}"
        );
    }
    let seen = PutMode::IfUnchanged(Some(&large));
    let error = store.put_user("al", b"new", HOUR, seen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    let mut new = session(HOUR);
    new.metadata = Some(Bytes::from(large));
    let error = store.create("al", &id, &new, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    checks.join_all().await;
    assert_eq!(store.health().reconnects(), 0);
}

/// Also one that is set as low as servers allow.
async fn the_largest_value_fits_every_server(backend: &impl Server) {
    let set = ["CONFIG", "SET", "proto-max-bulk-len", "1mb"];
    backend.server().cmd(&set).await;
    let (store, id) = (backend.store().await, token_id(1));
    log_in(&store, "al", &id).await;
    let value = vec![b'x'; MAX_VALUE_LEN];
    let mut before: Option<&[u8]> = None;
    for _ in 0..2 {
        let mode = PutMode::IfUnchanged(before);
        assert!(store.put_user("al", &value, HOUR, mode).await.unwrap());
        let user = live(&store, "al", &id).await.user;
        assert_eq!(user.unwrap().len(), MAX_VALUE_LEN);
        before = Some(&value);
    }
    assert_eq!(store.health().reconnects(), 0);
}
