//! Which keys are taken, and that none is ever shown.

use std::time::Duration;

use serde_json::Value;
use tower_bearer_session::{
    ErrorKind, MemoryStore,
    jwt::{JwtConfig, JwtVerifier, SigningKey, VerifyingKey},
};

use super::{
    EDDSA, EDDSA_PUBLIC, ES256, ES256_PUBLIC, RS256, RS256_PUBLIC, SECRET, built, config,
    signing_keys, verifying_keys,
};

const WEAK: &str = include_str!("keys/rsa1024.pem");
const WEAK_PUBLIC: &str = include_str!("keys/rsa1024.pub.pem");
const P384: &str = include_str!("keys/p384.pem");
const P384_PUBLIC: &str = include_str!("keys/p384.pub.pem");
const SEC1: &str = include_str!("keys/sec1.pem");
const PKCS1: &str = include_str!("keys/rs256-pkcs1.pem");

#[test]
fn weak_and_wrong_keys_are_refused() {
    let signing = [
        SigningKey::hs256("k", b""),
        SigningKey::hs256("k", &SECRET[..31]),
        SigningKey::rs256("k", WEAK),
        SigningKey::es256("k", P384),
        SigningKey::es256("k", SEC1),
        SigningKey::es256("k", ES256_PUBLIC),
        SigningKey::es256("k", EDDSA),
        SigningKey::eddsa("k", ES256),
        SigningKey::eddsa("k", EDDSA_PUBLIC),
        SigningKey::rs256("k", ES256),
        SigningKey::rs256("k", RS256_PUBLIC),
        SigningKey::rs256("k", ""),
        SigningKey::es256("k", "hunter2"),
        SigningKey::es256("", ES256),
        SigningKey::es256(ES256, "k"),
        SigningKey::eddsa(EDDSA, "k"),
        SigningKey::hs256("hunter2\n", SECRET),
        SigningKey::hs256(&"k".repeat(129), SECRET),
    ]
    .map(Result::unwrap_err);
    let verifying = [
        VerifyingKey::hs256("k", &SECRET[..31]),
        VerifyingKey::rs256("k", WEAK_PUBLIC),
        VerifyingKey::es256("k", P384_PUBLIC),
        VerifyingKey::es256("k", RS256_PUBLIC),
        VerifyingKey::eddsa("k", ES256_PUBLIC),
        VerifyingKey::rs256("k", EDDSA_PUBLIC),
        VerifyingKey::eddsa("k", "hunter2"),
        VerifyingKey::eddsa("", EDDSA_PUBLIC),
    ]
    .map(Result::unwrap_err);
    for error in signing.into_iter().chain(verifying) {
        assert_eq!(error.kind(), ErrorKind::Config);
        let shown = format!("{error} {error:?}");
        for secret in ["hunter2", "0123456789", "-----", "PRIVATE KEY"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    let weak = SigningKey::rs256("k", WEAK).unwrap_err().to_string();
    assert!(weak.contains("2048"), "{weak}");
    let short = SigningKey::hs256("k", &SECRET[..31])
        .unwrap_err()
        .to_string();
    assert!(
        short.contains("31 bytes") && short.contains("32"),
        "{short}"
    );
    SigningKey::rs256("k", PKCS1).unwrap();
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let key = || SigningKey::hs256("k", SECRET).unwrap();
    let twice = JwtConfig::new(key()).accept(VerifyingKey::hs256("k", SECRET).unwrap());
    let patient = JwtConfig::new(key()).leeway(Duration::from_secs(3601));
    let for_nobody = JwtConfig::new(key()).issuer("login").access_tokens("app");
    let by_nobody = JwtConfig::new(key()).audience("shop").access_tokens("app");
    let no_key = JwtConfig::verify_only([]);
    for config in [twice, patient, for_nobody, by_nobody, no_key] {
        let error = built(MemoryStore::new(), config.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(config.verifier().unwrap_err().kind(), ErrorKind::Config);
    }
    let none = JwtVerifier::builder([]).build().unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Config);
    for lifetime in [Duration::ZERO, Duration::MAX] {
        let config = JwtConfig::new(key()).max_lifetime(lifetime);
        let error = built(MemoryStore::new(), config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("max_lifetime"), "{error}");
    }
}

/// One id may name keys of different algorithms.
#[test]
fn keys_with_one_id_differ_in_their_algorithm() {
    let key = SigningKey::hs256("k", SECRET).unwrap();
    let config = JwtConfig::new(key).accept(VerifyingKey::es256("k", ES256_PUBLIC).unwrap());
    config.verifier().unwrap();
    built(MemoryStore::new(), config).unwrap();
}

/// A service that logs nobody in needs no signing key.
#[tokio::test]
async fn a_manager_that_only_verifies_mints_nothing() {
    let store = MemoryStore::new();
    let login = built(store.clone(), config(&signing_keys()[1])).unwrap();
    let reader = JwtConfig::verify_only(verifying_keys());
    assert_eq!(reader.jwk_set().matches("kid").count(), 3);
    let reader = built(store, reader).unwrap();
    let token = login.set_token("al", None).await.unwrap();
    let user = reader.check_token(token.expose_secret()).await.unwrap();
    assert_eq!(user.unwrap().id(), "al");
    let error = reader.set_token("al", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(reader.delete_token(token.expose_secret()).await.unwrap());
}

#[test]
fn debug_shows_no_key() {
    for key in signing_keys() {
        let config = config(&key).issuer("login");
        let builder = tower_bearer_session::TokenManager::builder(MemoryStore::new());
        let shown = format!(
            "{key:?} {:?} {config:?} {:?} {:?}",
            key.verifying_key(),
            config.verifier().unwrap(),
            builder.jwt(config.clone()).build().unwrap(),
        );
        let id = key.verifying_key().id();
        assert!(shown.contains(id), "{shown}");
        for pem in [ES256, EDDSA, RS256] {
            let body = pem.lines().nth(1).unwrap();
            assert!(!shown.contains(&body[20..40]), "{shown}");
        }
        for secret in ["0123456789", "48, 49, 50", "content"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }
}

/// The set has the public keys, and only what is public of them.
#[test]
fn the_jwk_set_is_public() {
    let set: Value = serde_json::from_str(&config(&signing_keys()[0]).jwk_set()).unwrap();
    let keys = set["keys"].as_array().unwrap();
    let ids: Vec<_> = keys
        .iter()
        .map(|key| key["kid"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["ES256", "EdDSA", "RS256"]);
    for key in keys {
        assert_eq!(key["use"], "sig");
        assert_eq!(key["alg"], key["kid"]);
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key.get(private).is_none(), "{key}");
        }
    }
    // The same from private keys as from public ones.
    for (signing, verifying) in signing_keys().into_iter().zip(verifying_keys()).skip(1) {
        let one = JwtConfig::new(signing).jwk_set();
        let other = JwtConfig::new(signing_keys()[0].clone())
            .accept(verifying)
            .jwk_set();
        assert_eq!(one, other);
    }
}
