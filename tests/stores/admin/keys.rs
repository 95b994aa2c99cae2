//! What only a Redis store can show: its keys, the run of its server, and the rights of its account.

use std::collections::BTreeSet;

use tower_bearer_session::{ErrorKind, RedisStore, SessionStore};

use crate::{
    eventually,
    stores::{Server, is_live, listed_users, log_in, on_every_server, patient, token_id},
};

on_every_server!(
    a_prefix_is_no_pattern,
    keys_of_others_are_no_users,
    a_page_looks_at_about_a_thousand_keys,
    a_listing_does_not_survive_a_restart,
    a_listing_survives_a_new_connection,
);

/// The characters of a prefix stand for themselves.
async fn a_prefix_is_no_pattern(backend: &impl Server) {
    let connect = async |prefix: &str| {
        let builder = RedisStore::builder(backend.server().url()).token_key_prefix(prefix);
        patient(builder).connect().await.unwrap()
    };
    let prefixes = ["*", "?", "a", r"\a", "[a-z]", "[^a]", r"\\a", "aa", r"\*"];
    for (n, prefix) in (0..).zip(prefixes) {
        log_in(
            &connect(prefix).await,
            &format!("of {prefix}"),
            &token_id(n),
        )
        .await;
    }
    for prefix in prefixes {
        let users = listed_users(&connect(prefix).await).await;
        assert_eq!(users, BTreeSet::from([format!("of {prefix}")]));
    }
}

/// Keys that match the pattern but are not hashes, or not the sessions of a user, are passed over.
async fn keys_of_others_are_no_users(backend: &impl Server) {
    let (server, store) = (backend.server(), backend.store().await);
    log_in(&store, "al", &token_id(1)).await;
    server.cmd(&["SET", "tbs:tokens:{a string}", "x"]).await;
    for key in [
        "tbs:tokens:{}",
        "tbs:tokens:{a}{b}",
        "tbs:tokens:{%41}",
        "tbs:tokens:{%7b}",
        "x:tbs:tokens:{a}",
    ] {
        server.cmd(&["HSET", key, "field", "value"]).await;
    }
    let too_long = format!("tbs:tokens:{{{}}}", "x".repeat(256));
    server.cmd(&["HSET", &too_long, "field", "value"]).await;
    assert_eq!(
        listed_users(&store).await,
        BTreeSet::from(["al".to_owned()])
    );
}

/// A database may have very many keys that are no sessions: pages without users lead on to those with some.
async fn a_page_looks_at_about_a_thousand_keys(backend: &impl Server) {
    let (server, store) = (backend.server(), backend.store().await);
    let fill = "for n = 1, 10000 do redis.call('SET', 'other' .. n, '') end";
    server.cmd(&["EVAL", fill, "0"]).await;
    log_in(&store, "al", &token_id(1)).await;
    let (mut pages, mut users, mut after) = (0, Vec::new(), None);
    loop {
        let page = store.list_users(after.as_ref()).await.unwrap();
        pages += 1;
        users.extend(page.users);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(users, ["al"]);
    assert!((5..=20).contains(&pages), "{pages} pages");
}

/// A cursor means nothing to the next run of a server: the listing ends with an error, not with too few users.
async fn a_listing_does_not_survive_a_restart(backend: &impl Server) {
    let (server, store) = (backend.server(), backend.store().await);
    let log_all_in = async || {
        for n in 0..3000 {
            log_in(&store, &format!("user{n}"), &token_id(1)).await;
        }
    };
    log_all_in().await;
    let page = store.list_users(None).await.unwrap();
    server.restart().await;
    eventually("a connection", async || store.ping().await.is_ok()).await;
    log_all_in().await;
    let listed = store.list_users(page.next.as_ref()).await;
    let error = listed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("start another listing"),
        "{error}"
    );
    assert_eq!(listed_users(&store).await.len(), 3000);
}

/// Another connection to the same server, even of another process, goes on with a listing.
async fn a_listing_survives_a_new_connection(backend: &impl Server) {
    let store = backend.store().await;
    for n in 0..3000 {
        log_in(&store, &format!("user{n}"), &token_id(1)).await;
    }
    let (mut users, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.list_users(after.as_ref()).await.unwrap();
        users.extend(page.users);
        let Some(next) = page.next else { break };
        after = Some(next);
        backend
            .server()
            .cmd(&["CLIENT", "KILL", "TYPE", "normal"])
            .await;
    }
    assert_eq!(users.len(), 3000);
    assert!(is_live(&store, "user7", &token_id(1)).await);
}
