//! What comes to an end by itself.

use std::time::{Duration, Instant};

use tower_bearer_session::{
    SessionStore,
    store::{NewToken, PutMode, SessionChange, TokenStatus},
};

use super::{LONG_TIMEOUT, lasting, near_store, warm};
use crate::{
    harness::{Flavor, RedisServer},
    stores::{HOUR, Server, log_in, on_every_server, session, token_id},
};

on_every_server!(
    a_session_is_not_served_past_its_expiry,
    the_grace_of_a_replaced_token_ends_as_it_does_at_the_server,
);

const TTL: Duration = Duration::from_millis(300);

async fn a_session_is_not_served_past_its_expiry(backend: &impl Server) {
    let store = near_store(backend.server(), lasting()).await;
    for n in 0..5 {
        let id = token_id(n);
        let created = store.create("al", &id, &session(TTL), None).await;
        let expires_at = created.unwrap().session.expires_at;
        let begun = Instant::now();
        loop {
            // A hit that begins later would be of an expired session.
            let elapsed = begun.elapsed();
            if let Some(hit) = store.check_now("al", &id) {
                let hit = hit.unwrap().unwrap();
                assert!(hit.now < expires_at, "{hit:?}");
                assert!(elapsed < TTL + Duration::from_millis(100));
            } else if store.check("al", &id).await.unwrap().is_none() {
                break;
            }
            assert!(begun.elapsed() < LONG_TIMEOUT);
        }
        assert!(store.check_now("al", &id).is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_value_is_not_served_past_its_expiry() {
    let server = RedisServer::start_with(Flavor::Redis, &["--enable-debug-command", "yes"]).await;
    let store = near_store(&server, lasting()).await;
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    // Otherwise the server would announce the end itself.
    server.cmd(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]).await;
    let put = store.put_user("al", b"value", TTL, PutMode::Replace);
    assert!(put.await.unwrap());
    let put = Instant::now();
    warm(&store, "al", &id).await;
    while put.elapsed() < TTL + Duration::from_millis(20) {
        let begun = put.elapsed();
        if let Some(hit) = store.check_now("al", &id)
            && hit.unwrap().unwrap().user.is_some()
        {
            assert!(begun < TTL, "a value that has expired");
        }
        tokio::task::yield_now().await;
    }
    let checked = store.check("al", &id).await.unwrap().unwrap();
    assert_eq!(checked.user, None);
}

/// No sooner, which would end the session of a client that has not yet got the new token, and no later.
async fn the_grace_of_a_replaced_token_ends_as_it_does_at_the_server(backend: &impl Server) {
    let store = near_store(backend.server(), lasting()).await;
    let (id, new) = (token_id(1), token_id(2));
    log_in(&store, "al", &id).await;
    let mut change = SessionChange::refresh(HOUR);
    change.new_token = Some(NewToken::new(new, TTL));
    store.update("al", &id, &change).await.unwrap().unwrap();
    let begun = Instant::now();
    loop {
        let before = store.check("al", &id).await.unwrap().unwrap();
        let hit = store.check_now("al", &id);
        let after = store.check("al", &id).await.unwrap().unwrap();
        let [before, after] =
            [before, after].map(|checked| checked.session.token_status(&id, &id, checked.now));
        if let Some(hit) = hit {
            let hit = hit.unwrap().unwrap();
            let status = hit.session.token_status(&id, &id, hit.now);
            assert!(status == before || status == after, "{status:?}");
        }
        if before == TokenStatus::Reused {
            break;
        }
        assert!(begun.elapsed() < LONG_TIMEOUT);
    }
    warm(&store, "al", &id).await;
    let hit = store.check_now("al", &id).unwrap().unwrap().unwrap();
    let status = hit.session.token_status(&id, &id, hit.now);
    assert_eq!(status, TokenStatus::Reused);
}
