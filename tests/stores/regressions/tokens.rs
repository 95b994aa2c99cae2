//! Defects 1 to 8.

use std::{collections::HashSet, sync::atomic::Ordering::SeqCst, time::Duration};

use ::redis::Value;
use tower_bearer_session::{ErrorKind, TokenManager, TokenManagerBuilder};

use super::{counting_manager, is_valid, log_in};
use crate::stores::{
    Backend, DAY, HOUR, SHORT, Server, at_once, forged, on_every_store, outlive_short,
};

on_every_store!(
    a_refresh_neither_creates_nor_revives,
    ids_with_underscores_stay_themselves,
    a_crafted_token_harms_no_other_user,
    single_mode_leaves_one_token_after_parallel_logins,
    nothing_slips_through_a_logout_of_all,
    long_and_short_ttls_mean_what_they_say,
    a_malformed_token_is_no_error;
    servers:
    a_login_that_was_not_stored_is_an_error,
    a_key_lives_as_long_as_its_longest_session,
    an_outage_is_an_error_and_a_malformed_token_is_not,
);

/// Defect 1: `RefreshToken` of a token never issued created a valid session, and it revived tokens that
/// were logged out or displaced.
async fn a_refresh_neither_creates_nor_revives(backend: &impl Backend) {
    let manager: TokenManager = backend
        .manager_builder()
        .await
        .single_mode()
        .build()
        .unwrap();
    let displaced = log_in(&manager, "al").await;
    let logged_out = log_in(&manager, "al").await;
    assert!(manager.delete_token(&logged_out).await.unwrap());
    for token in [&forged("al", 1), &forged("bo", 1), &displaced, &logged_out] {
        assert!(!manager.refresh_token(token, HOUR).await.unwrap());
        assert!(!is_valid(&manager, token).await);
    }
    assert!(manager.list_user_tokens("al").await.unwrap().is_empty());
    assert!(manager.list_user_tokens("bo").await.unwrap().is_empty());
}

/// Defect 2: tokens of ids with `_` never checked, and after a refresh authenticated as another user:
/// `admin_eve` as `admin`.
async fn ids_with_underscores_stay_themselves(backend: &impl Backend) {
    let manager = backend.manager().await;
    let ids = [
        "admin",
        "admin_eve",
        "admin_",
        "_admin",
        "_",
        "a_b_c",
        "admin.eve",
        "admin:eve",
    ];
    for id in ids {
        let token = log_in(&manager, id).await;
        for _ in 0..2 {
            let user = manager.check_token(&token).await.unwrap().unwrap();
            assert_eq!(user.id(), id);
            assert!(manager.refresh_token(&token, HOUR).await.unwrap());
        }
    }
    for id in ids {
        assert_eq!(manager.list_user_tokens(id).await.unwrap().len(), 1);
    }
}

/// Defect 3: tokens and the index of a user's tokens shared a prefix, and a crafted token wiped another
/// user's index.
async fn a_crafted_token_harms_no_other_user(backend: &impl Backend) {
    let (manager, loads) = counting_manager(backend, |builder| builder).await;
    let token = log_in(&manager, "alice").await;
    log_in(&manager, "alice").await;
    manager
        .check_token_or_update_user(&token, None)
        .await
        .unwrap();
    let before = manager.list_user_tokens("alice").await.unwrap();
    for id in [
        "{alice}",
        "alice}",
        "{alice",
        "%7Balice%7D",
        "tokens:{alice}",
        "tbs:tokens:{alice}",
        "}:{alice",
        "alice\0",
        "alice\n",
        "Alice",
        " alice",
        "*",
    ] {
        for crafted in [forged(id, 1), forged("alice", 1)] {
            assert!(!manager.refresh_token(&crafted, HOUR).await.unwrap());
            assert!(!manager.delete_token(&crafted).await.unwrap());
            assert!(!is_valid(&manager, &crafted).await);
        }
        assert_eq!(manager.delete_user_tokens(id).await.unwrap(), 0);
        let id_of_alices = before[0].id();
        assert!(!manager.delete_user_token(id, id_of_alices).await.unwrap());
        assert_eq!(
            manager
                .delete_other_user_tokens(id, id_of_alices)
                .await
                .unwrap(),
            0
        );
        manager.delete_user(id).await.unwrap();
    }
    assert_eq!(manager.list_user_tokens("alice").await.unwrap(), before);
    let user = manager
        .check_token_or_update_user(&token, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(user.detail().unwrap(), "alice");
    assert_eq!(loads.load(SeqCst), 1);
}

/// Defect 4: errors of the writing transaction were dropped, and `SetToken` returned a token that did not
/// work.
async fn a_login_that_was_not_stored_is_an_error(backend: &impl Server) {
    let (manager, server) = (backend.manager().await, backend.server());
    server
        .cmd(&["SET", "tbs:tokens:{al}", "something else"])
        .await;
    let error = manager.set_token("al", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    server.cmd(&["DEL", "tbs:tokens:{al}"]).await;

    server.cmd(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = manager.set_token("al", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    server.cmd(&["CONFIG", "SET", "maxmemory", "0"]).await;

    assert_eq!(server.cmd(&["DBSIZE"]).await, Value::Int(0));
    let token = log_in(&manager, "al").await;
    assert!(is_valid(&manager, &token).await);
}

/// Defect 5: single mode deleted, then set: after 6 parallel logins 48 of 50 users had several tokens.
async fn single_mode_leaves_one_token_after_parallel_logins(backend: &impl Backend) {
    let (one, _) = counting_manager(backend, TokenManagerBuilder::single_mode).await;
    let (other, _) = counting_manager(backend, TokenManagerBuilder::single_mode).await;
    let managers = [one, other];
    let tokens = at_once(6 * 50, |task| {
        let manager = managers[task % 2].clone();
        async move {
            let user_id = format!("user {}", task % 50);
            let token = manager.set_token(&user_id, HOUR).await.unwrap();
            (user_id, token)
        }
    });
    let mut with_a_token = HashSet::new();
    for (user_id, token) in tokens.await {
        if is_valid(&managers[0], token.expose_secret()).await {
            assert!(with_a_token.insert(user_id), "two valid tokens");
        }
    }
    assert_eq!(with_a_token.len(), 50);
}

/// Defect 6: `DeleteUserToken` read, then deleted, and a login or refresh in between survived.
async fn nothing_slips_through_a_logout_of_all(backend: &impl Backend) {
    let (one, other) = (backend.manager().await, backend.manager().await);
    for round in 0..100 {
        let user_id = format!("user {round}");
        let (first, second) = (log_in(&one, &user_id).await, log_in(&one, &user_id).await);
        let (login, ..) = tokio::join!(
            other.set_token(&user_id, HOUR),
            one.refresh_token(&first, DAY),
            one.delete_user_tokens(&user_id),
            other.refresh_token(&second, DAY),
        );
        assert!(!is_valid(&other, &first).await && !is_valid(&other, &second).await);
        // The login was before it or after it; in between it would be valid and not in the list.
        let login = login.unwrap();
        let listed: Vec<_> = one.list_user_tokens(&user_id).await.unwrap();
        let listed: Vec<_> = listed.iter().map(|token| *token.id()).collect();
        let lives = is_valid(&one, login.expose_secret()).await;
        assert_eq!(listed, Vec::from_iter(lives.then_some(*login.id())));
    }
}

/// Defect 7: the index lived 30 days, and longer tokens died with it; a token of 1 s was never valid.
async fn long_and_short_ttls_mean_what_they_say(backend: &impl Backend) {
    let manager = backend.manager().await;
    let ttl = 400 * DAY;
    let long = manager.set_token("al", ttl).await.unwrap();
    // A shorter one beside it takes nothing from it.
    manager.set_token("al", SHORT).await.unwrap();
    outlive_short().await;
    let user = manager
        .check_token(long.expose_secret())
        .await
        .unwrap()
        .unwrap();
    assert!(user.token_remaining().unwrap() > ttl - HOUR);
    let list = manager.list_user_tokens("al").await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].expires_at(), list[0].created_at() + ttl);

    // The machine may be so busy that a second goes by before the check, but not every time.
    let second = Duration::from_secs(1);
    for attempt in 0.. {
        let short = manager.set_token("bo", second).await.unwrap();
        if let Some(user) = manager.check_token(short.expose_secret()).await.unwrap() {
            let remaining = user.token_remaining().unwrap();
            assert!(!remaining.is_zero() && remaining <= second);
            break;
        }
        assert!(attempt < 10, "a token of a second is never valid");
    }
}

/// Defect 7 once more: what Redis itself is told about the expiry.
async fn a_key_lives_as_long_as_its_longest_session(backend: &impl Server) {
    let manager = backend.manager().await;
    for days in [1, 400, 30] {
        manager.set_token("al", days * DAY).await.unwrap();
    }
    let Value::Int(ttl) = backend.server().cmd(&["PTTL", "tbs:tokens:{al}"]).await else {
        panic!("not a ttl");
    };
    let ttl = Duration::from_millis(ttl.try_into().unwrap());
    assert!(399 * DAY < ttl && ttl <= 400 * DAY, "{ttl:?}");
}

/// Defect 8: a malformed token and a failure of Redis were the same error.
async fn a_malformed_token_is_no_error(backend: &impl Backend) {
    let (manager, loads) = counting_manager(backend, |builder| builder).await;
    for malformed in MALFORMED {
        refuses_quietly(&manager, malformed).await;
    }
    assert_eq!(loads.load(SeqCst), 0);
}

/// The same in an outage: what is no token is refused as ever, and what may be one is an error.
async fn an_outage_is_an_error_and_a_malformed_token_is_not(backend: &impl Server) {
    let (manager, _) = counting_manager(backend, |builder| builder).await;
    let token = log_in(&manager, "al").await;
    backend.server().kill();
    for malformed in MALFORMED {
        refuses_quietly(&manager, malformed).await;
    }
    let errors = [
        manager.check_token(&token).await.map(drop).unwrap_err(),
        manager
            .check_token_or_update_user(&token, None)
            .await
            .map(drop)
            .unwrap_err(),
        manager.refresh_token(&token, None).await.unwrap_err(),
        manager.delete_token(&token).await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_fault(), "{error:?}");
    }
}

/// Texts that are no tokens; the first ones are as gosession wrote them.
const MALFORMED: [&str; 8] = [
    "admin_1a2b3c4d5e6f",
    "admin",
    "_",
    "",
    "tbs1.",
    "tbs1.YWRtaW4.AAAA",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
    "tbs1.YWRtaW4.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\nDEL tbs:tokens:{admin}",
];

async fn refuses_quietly(manager: &TokenManager<String>, malformed: &str) {
    assert!(!is_valid(manager, malformed).await, "{malformed}");
    let user = manager.check_token_or_update_user(malformed, None).await;
    assert!(user.unwrap().is_none(), "{malformed}");
    assert!(!manager.refresh_token(malformed, HOUR).await.unwrap());
    assert!(!manager.delete_token(malformed).await.unwrap());
}
