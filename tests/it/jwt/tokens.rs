//! What is minted, and that it is as good as an opaque token.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tokio::runtime::Runtime;
use tower_bearer_session::{ErrorKind, MemoryStore, OnFull, TokenManager, TokenOptions};

use super::{ES256, SECRET, built, config, counted, now, parts, signing_keys};
use tower_bearer_session::jwt::{JwtConfig, SigningKey};

/// Of each algorithm: the claims that the docs name, and nothing else.
#[tokio::test]
async fn claims_are_as_documented() {
    for key in signing_keys() {
        let (manager, _) = counted(config(&key).issuer("login").audience("shop"));
        let before = now();
        let options = TokenOptions::new().max_lifetime(Duration::from_secs(3600));
        let token = manager.set_token_with("al", options).await.unwrap();
        let [header, claims] = parts(token.token.expose_secret());
        let id = key.verifying_key().id();
        assert_eq!(header, json!({"typ": "JWT", "alg": id, "kid": id}));
        let iat = claims["iat"].as_u64().unwrap();
        assert!((before..=now()).contains(&iat));
        let exp = claims["exp"].as_u64().unwrap();
        assert!((iat + 3600..=iat + 3602).contains(&exp), "{iat} {exp}");
        assert_eq!(claims["jti"].as_str().unwrap().len(), 22);
        let expected = json!({
            "sub": "al", "iss": "login", "aud": "shop",
            "iat": iat, "exp": exp, "jti": claims["jti"],
        });
        assert_eq!(claims, expected);

        let (manager, _) = counted(config(&key));
        let token = manager.set_token("al", None).await.unwrap();
        let [_, claims] = parts(token.expose_secret());
        let expected = json!({"sub": "al", "iat": claims["iat"], "jti": claims["jti"]});
        assert_eq!(claims, expected);
    }
}

/// A whole life: check, list, refresh, log out; all by the same handle.
#[tokio::test]
async fn a_session_is_a_session() {
    for key in signing_keys() {
        let builder = TokenManager::builder(MemoryStore::new()).jwt(config(&key));
        let manager: TokenManager = builder
            .session_limit(2, OnFull::EvictOldest)
            .build()
            .unwrap();
        let log_in = async || manager.set_token("al", None).await.unwrap();
        let (first, second) = (log_in().await, log_in().await);
        assert_ne!(first.expose_secret(), second.expose_secret());
        let check = async |token: &str| manager.check_token(token).await.unwrap();
        let user = check(first.expose_secret()).await.unwrap();
        assert_eq!(user.id(), "al");
        assert_eq!(user.token_id(), Some(first.id()));
        let listed = manager.list_user_tokens("al").await.unwrap();
        assert_eq!(listed.len(), 2);
        assert!(
            manager
                .refresh_token(first.expose_secret(), None)
                .await
                .unwrap()
        );
        // A logout counts at once, however good the signature is.
        assert!(manager.delete_token(first.expose_secret()).await.unwrap());
        assert!(check(first.expose_secret()).await.is_none());
        assert!(
            !manager
                .refresh_token(first.expose_secret(), None)
                .await
                .unwrap()
        );
        let (_, third) = (log_in().await, log_in().await);
        assert!(check(second.expose_secret()).await.is_none(), "evicted");
        assert!(check(third.expose_secret()).await.is_some());
    }
}

proptest! {
    /// Any user id of 1 to 255 bytes comes back as it went in.
    #[test]
    fn every_user_id_round_trips(id in "(?s).{1,63}") {
        let runtime = Runtime::new().unwrap();
        let (manager, _) = counted(JwtConfig::new(SigningKey::hs256("k", SECRET).unwrap()));
        let user = runtime.block_on(async {
            let token = manager.set_token(&id, None).await.unwrap();
            manager.check_token(token.expose_secret()).await.unwrap()
        });
        let user = user.unwrap();
        prop_assert_eq!(user.id(), &*id);
    }
}

#[tokio::test]
async fn the_worst_user_ids_fit_and_longer_ones_are_refused() {
    for key in signing_keys() {
        let (manager, _) = counted(config(&key));
        // Each of these takes six characters in JSON.
        let token = manager.set_token(&"\u{1}".repeat(255), None).await.unwrap();
        assert!(
            manager
                .check_token(token.expose_secret())
                .await
                .unwrap()
                .is_some()
        );
        for id in [String::new(), "x".repeat(256)] {
            let error = manager.set_token(&id, None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
    let key = SigningKey::es256("k", ES256).unwrap();
    let (manager, _) = counted(JwtConfig::new(key).issuer("x".repeat(4000)));
    let error = manager.set_token("al", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// Both formats side by side, if asked for; new tokens are JWTs.
#[tokio::test]
async fn opaque_tokens_may_be_accepted_during_a_migration() {
    let store = MemoryStore::new();
    let before = TokenManager::new(store.clone());
    let opaque = before.set_token("al", None).await.unwrap();
    let key = SigningKey::es256("k", ES256).unwrap();
    let strict = built(store.clone(), JwtConfig::new(key.clone())).unwrap();
    let both = built(store, JwtConfig::new(key).accept_opaque()).unwrap();
    let jwt = both.set_token("al", None).await.unwrap();
    assert!(jwt.expose_secret().starts_with("eyJ"));
    for (manager, token, accepted) in [
        (&strict, &opaque, false),
        (&strict, &jwt, true),
        (&both, &opaque, true),
        (&both, &jwt, true),
        (&before, &opaque, true),
        (&before, &jwt, false),
    ] {
        let user = manager.check_token(token.expose_secret()).await.unwrap();
        assert_eq!(user.is_some(), accepted);
    }
    // They are sessions of one user.
    assert_eq!(both.delete_user_tokens("al").await.unwrap(), 2);
    for token in [&opaque, &jwt] {
        assert!(
            both.check_token(token.expose_secret())
                .await
                .unwrap()
                .is_none()
        );
    }
}
