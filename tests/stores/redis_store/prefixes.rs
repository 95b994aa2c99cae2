use std::collections::BTreeSet;

use tower_bearer_session::{RedisStore, SessionStore, store::PutMode};

use super::{ask, everything};
use crate::stores::{HOUR, Server, is_live, listed, log_in, on_every_server, patient, token_id};

on_every_server!(
    stores_with_other_prefixes_are_apart,
    a_store_touches_its_own_keys_only,
    databases_are_apart,
    keys_are_the_documented_ones,
);

/// Two applications on one server do not see each other, though they have the same users and token ids.
async fn stores_with_other_prefixes_are_apart(backend: &impl Server) {
    let (shop, blog) = (
        prefixed(backend, "shop").await,
        prefixed(backend, "blog").await,
    );
    assert_apart(&shop, &blog).await;
    // Sharing one of the two prefixes shares just that.
    let builder = RedisStore::builder(backend.server().url());
    let builder = builder.token_key_prefix("shop:tokens").user_key_prefix("x");
    let shares_tokens = patient(builder).connect().await.unwrap();
    log_in(&shop, "bo", &token_id(1)).await;
    assert!(is_live(&shares_tokens, "bo", &token_id(1)).await);
    let replace = PutMode::Replace;
    shop.put_user("bo", b"1", HOUR, replace).await.unwrap();
    assert_eq!(shares_tokens.get_user("bo").await.unwrap(), None);
}

/// Nothing that is not under the prefixes is changed, not even what looks alike.
async fn a_store_touches_its_own_keys_only(backend: &impl Server) {
    let server = backend.server();
    let others = [
        "al",
        "{al}",
        "tokens:{al}",
        "shop:tokens",
        "shop:tokens:al",
        "shop:tokens:{a}l",
        "shop:tokens2:{al}",
        "tbs:tokens:{al}",
        "tbs:users:{al}",
    ];
    for key in others {
        server.cmd(&["SET", key, "untouched"]).await;
    }
    let store = prefixed(backend, "shop").await;
    everything(&store, "al").await.unwrap();
    log_in(&store, "al", &token_id(1)).await;
    let keys: BTreeSet<String> = ask(server, &["KEYS", "*"]).await;
    let own = BTreeSet::from(["shop:tokens:{al}", "shop:users:{al}"].map(str::to_owned));
    let others = others.map(str::to_owned);
    assert_eq!(keys, own.into_iter().chain(others.clone()).collect());
    for key in others {
        let value: String = ask(server, &["GET", &key]).await;
        assert_eq!(value, "untouched");
    }
}

/// Databases are apart, whichever way they are chosen, also after a new connection.
async fn databases_are_apart(backend: &impl Server) {
    let server = backend.server();
    let (plain, in_path) = (server.url(), format!("{}/3", server.url()));
    let connect = async |builder| patient(builder).connect().await.unwrap();
    let zero = connect(RedisStore::builder(&plain)).await;
    let three = connect(RedisStore::builder(&in_path)).await;
    assert_apart(&zero, &three).await;
    log_in(&three, "al", &token_id(1)).await;
    for same in [
        RedisStore::builder(&plain).db(3),
        // The builder wins over the URL.
        RedisStore::builder(format!("{plain}/5")).db(3),
    ] {
        let same = connect(same).await;
        assert!(is_live(&same, "al", &token_id(1)).await);
    }
    for _ in 0..3 {
        server.cmd(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        assert!(is_live(&three, "al", &token_id(1)).await);
        assert!(!is_live(&zero, "al", &token_id(1)).await);
        assert_eq!(listed(&three, "al").await, [token_id(1)]);
    }
    let no_such_db = RedisStore::connect(format!("{plain}/9999")).await;
    let error = no_such_db.unwrap_err();
    assert!(format!("{error:?}").contains("DB index"), "{error:?}");
}

/// The guide specifies the keys on its page `layout`: services in other languages use them.
async fn keys_are_the_documented_ones(backend: &impl Server) {
    let store = backend.store().await;
    for (user, escaped) in [
        ("al", "al"),
        ("a b_c.d:e*?[f]", "a b_c.d:e*?[f]"),
        ("{}%", "%7B%7D%25"),
        ("漢字 🦀", "漢字 🦀"),
    ] {
        backend.server().cmd(&["FLUSHALL"]).await;
        log_in(&store, user, &token_id(1)).await;
        let put = store.put_user(user, b"{}", HOUR, PutMode::Replace).await;
        assert!(put.unwrap());
        let keys: BTreeSet<String> = ask(backend.server(), &["KEYS", "*"]).await;
        let expected = ["tokens", "users"].map(|kind| format!("tbs:{kind}:{{{escaped}}}"));
        assert_eq!(keys, BTreeSet::from(expected.clone()));
        let fields: Vec<String> = ask(backend.server(), &["HKEYS", &expected[0]]).await;
        assert_eq!(fields, [token_id(1).to_string()]);
    }
}

async fn assert_apart(here: &RedisStore, there: &RedisStore) {
    let (id, replace) = (token_id(1), PutMode::Replace);
    log_in(here, "al", &id).await;
    here.put_user("al", b"here", HOUR, replace).await.unwrap();
    assert!(!is_live(there, "al", &id).await);
    assert!(listed(there, "al").await.is_empty());
    assert_eq!(there.get_user("al").await.unwrap(), None);
    assert!(!there.refresh("al", &id, HOUR).await.unwrap());
    assert!(!there.delete("al", &id).await.unwrap());
    assert_eq!(there.delete_all("al", None).await.unwrap(), 0);
    there.put_user("al", b"there", HOUR, replace).await.unwrap();
    log_in(there, "al", &token_id(2)).await;

    assert!(is_live(here, "al", &id).await);
    assert_eq!(listed(here, "al").await, [id]);
    assert_eq!(here.get_user("al").await.unwrap().unwrap(), "here");
    assert_eq!(there.delete_all("al", None).await.unwrap(), 1);
    assert_eq!(here.delete_all("al", None).await.unwrap(), 1);
}

async fn prefixed(backend: &impl Server, name: &str) -> RedisStore {
    let builder = RedisStore::builder(backend.server().url())
        .token_key_prefix(format!("{name}:tokens"))
        .user_key_prefix(format!("{name}:users"));
    patient(builder).connect().await.expect("a store")
}
