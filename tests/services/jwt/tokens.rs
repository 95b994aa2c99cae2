//! What is minted, and that it is as good as an opaque token.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower_bearer_session::{ErrorKind, MemoryStore, OnFull, TokenManager, TokenOptions};

use super::{ES256, SECRET, built, config, counted, hs256, now, parts, signing_keys};
use tower_bearer_session::jwt::{JwtConfig, JwtVerifier, SigningKey};

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
            "iat": iat, "exp": exp, "jti": claims["jti"], "auth_time": iat,
        });
        assert_eq!(claims, expected);

        let (manager, _) = counted(config(&key));
        let token = manager.set_token("al", None).await.unwrap();
        let [_, claims] = parts(token.expose_secret());
        let expected = json!({
            "sub": "al", "iat": claims["iat"], "exp": claims["exp"], "jti": claims["jti"],
            "auth_time": claims["iat"],
        });
        assert_eq!(claims, expected);
    }
}

/// RFC 7519 §4.1.4: whoever has no store accepts a token until its `exp`, so each has one, and it is the absolute end
/// of the session, which a refresh cannot move.
#[tokio::test]
async fn every_token_and_its_session_have_one_end() {
    let (day, hour) = (Duration::from_secs(24 * 3600), Duration::from_secs(3600));
    let config = config(&signing_keys()[0]);
    let verifier = config.verifier().unwrap();
    let short = config.clone().max_lifetime(2 * hour);
    let login = |max_lifetime: Option<Duration>, ttl: Option<Duration>| {
        let options = max_lifetime.map_or_else(TokenOptions::new, |lifetime| {
            TokenOptions::new().max_lifetime(lifetime)
        });
        ttl.map_or(options.clone(), |ttl| options.ttl(ttl))
    };
    for (config, options, expected) in [
        (&config, login(None, None), 30 * day),
        (&config, login(None, Some(90 * day)), 30 * day),
        (&config, login(Some(90 * day), None), 90 * day),
        (&config, login(Some(hour), None), hour),
        (&short, login(None, None), 2 * hour),
        (&short, login(Some(hour), Some(day)), hour),
        (&short, login(Some(day), None), day),
    ] {
        let (manager, _) = counted(config.clone());
        let issued = manager.set_token_with("al", options).await.unwrap();
        let token = issued.token.expose_secret();
        let session = manager.list_user_tokens("al").await.unwrap().remove(0);
        let ends_at = session.ends_at().expect("an absolute end");
        assert_eq!(ends_at, session.created_at() + expected);
        assert!(issued.expires_at <= ends_at);
        // Rounded up to the second, and minted a moment before the store's clock was read.
        let exp = verifier.verify(token).unwrap().expires_at();
        let apart = match exp.duration_since(ends_at) {
            Ok(later) => later,
            Err(earlier) => earlier.duration(),
        };
        assert!(apart < Duration::from_secs(20), "{apart:?}");
        // However long it is refreshed for.
        assert!(manager.refresh_token(token, 300 * day).await.unwrap());
        let session = manager.list_user_tokens("al").await.unwrap().remove(0);
        assert_eq!(
            (session.expires_at(), session.ends_at()),
            (ends_at, Some(ends_at))
        );
    }
}

/// RFC 9068: access tokens have a type of their own, and neither kind is taken for the other.
#[tokio::test]
async fn access_tokens_and_other_tokens_are_not_mixed_up() {
    let key = &signing_keys()[1];
    let plain = config(key).issuer("login").audience("shop");
    let access = plain.clone().access_tokens("app");
    let store = MemoryStore::new();
    let managers = [plain.clone(), access.clone()].map(|it| built(store.clone(), it).unwrap());
    let verifiers = [plain.verifier().unwrap(), access.verifier().unwrap()];
    let set = JwtVerifier::from_jwk_set(&access.jwk_set()).unwrap();
    let set = set.issuer("login").audience("shop");
    let published = [
        set.clone().build().unwrap(),
        set.access_tokens().build().unwrap(),
    ];
    for (minter, typ) in ["JWT", "at+jwt"].into_iter().enumerate() {
        let token = managers[minter].set_token("al", None).await.unwrap();
        let token = token.expose_secret();
        let [header, claims] = parts(token);
        assert_eq!(header["typ"], typ);
        let client = (minter == 1).then_some("app");
        assert_eq!(claims.get("client_id").and_then(|id| id.as_str()), client);
        for reader in [0, 1] {
            let user = managers[reader].check_token(token).await.unwrap();
            assert_eq!(user.is_some(), reader == minter, "{typ} {reader}");
            for verifier in [&verifiers[reader], &published[reader]] {
                assert_eq!(
                    verifier.verify(token).is_ok(),
                    reader == minter,
                    "{typ} {reader}"
                );
            }
        }
    }
}

/// RFC 7515 §4.1.9, RFC 9068 §2.2 and §4: what counts as an access token.
#[test]
fn an_access_token_has_the_type_and_the_claims_of_its_rfc() {
    let key = signing_keys()[0].verifying_key().clone();
    let verifier = JwtVerifier::builder([key]).issuer("login").audience("shop");
    let verifier = verifier.access_tokens().build().unwrap();
    let claims = json!({
        "iss": "login", "exp": now() + 60, "aud": ["bank", "shop"], "sub": "al", "client_id": "app",
        "iat": now(), "jti": "x", "scope": "read write",
    });
    let header = |typ: Value| json!({"alg": "HS256", "kid": "HS256", "typ": typ});
    for typ in [
        "at+jwt",
        "AT+JWT",
        "application/at+jwt",
        "Application/At+Jwt",
    ] {
        let token = hs256(&header(json!(typ)), &claims, SECRET);
        let verified = verifier.verify(&token).expect(typ);
        assert_eq!(verified.other()["scope"], "read write");
        assert_eq!(verified.other()["client_id"], "app");
    }
    for typ in [
        "",
        "JWT",
        "jwt+at",
        "at+jwt;x=y",
        "text/at+jwt",
        "application/application/at+jwt",
    ] {
        let token = hs256(&header(json!(typ)), &claims, SECRET);
        assert!(verifier.verify(&token).is_err(), "{typ}");
    }
    let untyped = json!({"alg": "HS256", "kid": "HS256"});
    assert!(verifier.verify(&hs256(&untyped, &claims, SECRET)).is_err());
    for missing in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(missing);
        let token = hs256(&header(json!("at+jwt")), &claims, SECRET);
        assert!(verifier.verify(&token).is_err(), "{missing}");
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
