//! Tokens that nobody minted: fixation, growth of the store, work for the store.

use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst};

use ::redis::Value;
use tower_bearer_session::TokenManager;

use super::counting_manager;
use crate::stores::{Backend, DAY, HOUR, Server, at_once, commands_of, forged, on_every_store};

on_every_store!(
    a_token_is_never_adopted;
    servers:
    ten_thousand_bogus_tokens_write_nothing,
    refreshes_and_logouts_of_bogus_tokens_create_nothing,
    malformed_tokens_cost_no_store_call,
    a_logout_leaves_no_key,
);

/// CVE-2024-38513: a token of the client's choice stays worthless, whatever is done with it, and also after
/// the user has logged in.
async fn a_token_is_never_adopted(backend: &impl Backend) {
    let (manager, _) = counting_manager(backend).await;
    let planted = forged("al", 1);
    for _ in 0..2 {
        assert!(manager.check_token(&planted).await.unwrap().is_none());
        let user = manager.check_token_or_update_user(&planted, HOUR).await;
        assert!(user.unwrap().is_none());
        assert!(!manager.refresh_token(&planted, DAY).await.unwrap());
        assert!(!manager.delete_token(&planted).await.unwrap());
        let minted = manager.set_token("al", HOUR).await.unwrap();
        assert_ne!(minted.expose_secret(), planted);
        let list = manager.list_user_tokens("al").await.unwrap();
        assert!(list.iter().any(|token| token.id() == minted.id()));
    }
    assert!(manager.check_token(&planted).await.unwrap().is_none());
    assert_eq!(manager.list_user_tokens("al").await.unwrap().len(), 2);
}

/// CVE-2015-5143: 10,000 well-formed tokens of a thousand users cost at most the three reads of a check each (checks
/// at the same time share the time), and leave neither a key nor a loaded user.
async fn ten_thousand_bogus_tokens_write_nothing(backend: &impl Server) {
    const TASKS: usize = 50;
    const EACH: usize = 10_000 / TASKS;
    let (manager, loads) = counting_manager(backend).await;
    let checks = at_once(TASKS, |task| {
        let manager = manager.clone();
        async move {
            for n in task * EACH..(task + 1) * EACH {
                let token = forged(&format!("user {}", n % 1000), n as u128);
                let user = manager.check_token_or_update_user(&token, HOUR).await;
                assert!(user.unwrap().is_none());
            }
        }
    });
    let (mut commands, _) = commands_of(backend.server(), checks).await;
    let times = commands.remove("time").expect("the time of checks");
    assert!(times <= 10_000, "{times}");
    assert_eq!(commands, calls([("get", 10_000), ("hget", 10_000)]));
    assert_eq!(keys(backend).await, 0);
    assert_eq!(loads.load(SeqCst), 0);
}

/// Whatever else a client may ask for with a token that nobody minted leaves nothing either.
async fn refreshes_and_logouts_of_bogus_tokens_create_nothing(backend: &impl Server) {
    let (manager, _) = counting_manager(backend).await;
    for n in 0..100 {
        let token = forged(&format!("user {n}"), n);
        assert!(!manager.refresh_token(&token, DAY).await.unwrap());
        assert!(!manager.delete_token(&token).await.unwrap());
    }
    assert_eq!(keys(backend).await, 0);
}

/// What is no token never reaches the store.
async fn malformed_tokens_cost_no_store_call(backend: &impl Server) {
    let (manager, _) = counting_manager(backend).await;
    let minted = manager.set_token("al", HOUR).await.unwrap();
    let (commands, ()) = commands_of(
        backend.server(),
        refuse_malformed(&manager, minted.expose_secret()),
    )
    .await;
    assert_eq!(commands, BTreeMap::new());
    assert!(
        manager
            .check_token(minted.expose_secret())
            .await
            .unwrap()
            .is_some()
    );
}

/// What is not needed any more is not there any more.
async fn a_logout_leaves_no_key(backend: &impl Server) {
    let (manager, _) = counting_manager(backend).await;
    for user_id in ["al", "bo", "cy"] {
        let one = manager.set_token(user_id, HOUR).await.unwrap();
        let other = manager.set_token(user_id, HOUR).await.unwrap();
        assert_eq!(keys(backend).await, 1);
        assert_eq!(
            manager
                .delete_other_user_tokens(user_id, one.id())
                .await
                .unwrap(),
            1
        );
        assert!(!manager.delete_token(other.expose_secret()).await.unwrap());
        assert_eq!(keys(backend).await, 1);
        match user_id {
            "al" => assert!(manager.delete_token(one.expose_secret()).await.unwrap()),
            "bo" => assert!(manager.delete_user_token(user_id, one.id()).await.unwrap()),
            _ => assert_eq!(manager.delete_user_tokens(user_id).await.unwrap(), 1),
        }
        assert_eq!(keys(backend).await, 0);
    }
}

/// Near misses of a live token, and texts that are nothing like it.
async fn refuse_malformed(manager: &TokenManager<String>, token: &str) {
    let mut texts = vec![
        String::new(),
        " ".to_owned(),
        "tbs1".to_owned(),
        "\0".repeat(99),
        "漢字".to_owned(),
        "A".repeat(1_000_000),
        format!("{token}A"),
        format!("{token}="),
        format!("{token} "),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}.{token}"),
        format!("{token}{}", "A".repeat(1_000_000)),
        format!("Bearer {token}"),
        token.replace("tbs1", "tbs2"),
        token.replace("tbs1", "TBS1"),
        token.replace('.', ":"),
        token.replacen('.', "..", 1),
        forged(&"x".repeat(256), 1),
        forged("", 1),
    ];
    texts.extend((0..token.len()).map(|len| token[..len].to_owned()));
    for text in texts {
        assert!(
            manager.check_token(&text).await.unwrap().is_none(),
            "{text}"
        );
        let user = manager.check_token_or_update_user(&text, None).await;
        assert!(user.unwrap().is_none(), "{text}");
        assert!(!manager.refresh_token(&text, None).await.unwrap(), "{text}");
        assert!(!manager.delete_token(&text).await.unwrap(), "{text}");
    }
}

fn calls<const N: usize>(calls: [(&str, u64); N]) -> BTreeMap<String, u64> {
    calls.map(|(name, count)| (name.to_owned(), count)).into()
}

async fn keys(backend: &impl Server) -> i64 {
    match backend.server().cmd(&["DBSIZE"]).await {
        Value::Int(keys) => keys,
        other => panic!("not a number of keys: {other:?}"),
    }
}
