//! Forged tokens: refused, and without a store call.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tower_bearer_session::{
    EventKind, MemoryStore, RefusalReason, SessionStore, TokenManager,
    jwt::{JwtConfig, JwtVerifier, SigningKey},
    test_util::{Backend as _, Faults},
};

use super::{
    BASE64URL, EDDSA, ES256, ES256_PUBLIC, RS256, RS256_PUBLIC, SECRET, config, header, hs256,
    hs256_raw, now, signing_keys, verifying_keys,
};
use crate::stores::{Backend, Redis, Server, commands_of};
use base64::Engine;

/// What tokens have to say in these tests.
fn strict() -> JwtConfig {
    config(&signing_keys()[0]).issuer("login").audience("shop")
}

fn claims() -> Value {
    json!({"sub": "al", "jti": "x", "iat": now(), "exp": now() + 3600, "iss": "login", "aud": "shop"})
}

fn with(mut value: Value, name: &str, new: Value) -> Value {
    value[name] = new;
    value
}

fn without(mut value: Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name);
    value
}

/// The JSON of an object, with another member that is not UTF-8.
fn with_invalid_utf8(object: &Value) -> Vec<u8> {
    let json = with(object.clone(), "x", json!("~")).to_string();
    json.bytes()
        .map(|byte| if byte == b'~' { 0xff } else { byte })
        .collect()
}

/// All attacks that are known against readers of JWTs, by name.
fn attacks() -> Vec<(&'static str, String)> {
    let signed = |header: &Value, claims: &Value| hs256(header, claims, SECRET);
    let by = |name: &str, value: Value| signed(&with(header(), name, value), &claims());
    let says = |name: &str, value: Value| signed(&header(), &with(claims(), name, value));
    let unsigned = |alg: &str| {
        let header = with(header(), "alg", json!(alg));
        let [header, claims] = [&header, &claims()].map(|it| BASE64URL.encode(it.to_string()));
        format!("{header}.{claims}.")
    };
    let other = |algorithm: Algorithm, key: EncodingKey, id: &str| {
        let mut header = Header::new(algorithm);
        header.kid = Some(id.to_owned());
        encode(&header, &claims(), &key).unwrap()
    };
    let pem = |pem: &str| pem.as_bytes().to_owned();
    let der = |pem: &str| {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD
            .decode(body)
            .unwrap()
    };
    let good = signed(&header(), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let raw = |claims: &str| {
        hs256_raw(
            &BASE64URL.encode(header().to_string()),
            &BASE64URL.encode(claims),
            SECRET,
        )
    };
    let mut attacks = vec![
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("alg nOnE", unsigned("nOnE")),
        ("alg empty", unsigned("")),
        ("HS256 without signature", unsigned("HS256")),
        ("signature stripped", message.to_owned()),
        (
            "signature shortened",
            format!("{message}.{}", &signature[..20]),
        ),
        ("another secret", hs256(&header(), &claims(), &[b'x'; 32])),
        ("an empty secret", hs256(&header(), &claims(), b"")),
        ("no kid", signed(&without(header(), "kid"), &claims())),
        ("unknown kid", by("kid", json!("2020"))),
        ("kid is a path", by("kid", json!("../../dev/null"))),
        ("kid is no text", by("kid", json!(7))),
        ("unknown crit", by("crit", json!(["exp"]))),
        ("empty crit", by("crit", json!([]))),
        (
            "unencoded payload",
            signed(
                &with(with(header(), "b64", json!(false)), "crit", json!(["b64"])),
                &claims(),
            ),
        ),
        ("another type", by("typ", json!("dpop+jwt"))),
        ("type is no text", by("typ", json!(1))),
        (
            "header is a list",
            signed(&json!(["HS256", header()["kid"], "JWT"]), &claims()),
        ),
        ("HS256 with the header of ES256", by("alg", json!("ES256"))),
        (
            "HS512 with the same secret",
            other(Algorithm::HS512, EncodingKey::from_secret(SECRET), "HS256"),
        ),
        (
            "RS512 with the same key",
            other(
                Algorithm::RS512,
                EncodingKey::from_rsa_pem(RS256.as_bytes()).unwrap(),
                "RS256",
            ),
        ),
        (
            "PS256 with the same key",
            other(
                Algorithm::PS256,
                EncodingKey::from_rsa_pem(RS256.as_bytes()).unwrap(),
                "RS256",
            ),
        ),
        (
            "ES256 under the id of EdDSA",
            other(
                Algorithm::ES256,
                EncodingKey::from_ec_pem(ES256.as_bytes()).unwrap(),
                "EdDSA",
            ),
        ),
        (
            "EdDSA under the id of ES256",
            other(
                Algorithm::EdDSA,
                EncodingKey::from_ed_pem(EDDSA.as_bytes()).unwrap(),
                "ES256",
            ),
        ),
        ("a key of its own", {
            let key = json!({"kty": "oct", "kid": "HS256", "k": BASE64URL.encode([b'x'; 32])});
            hs256(&with(header(), "jwk", key), &claims(), &[b'x'; 32])
        }),
        ("no expiry", signed(&header(), &without(claims(), "exp"))),
        ("expiry is null", says("exp", Value::Null)),
        ("an access token", by("typ", json!("at+jwt"))),
        ("a null crit", by("crit", Value::Null)),
        (
            "two algorithms",
            hs256_raw(
                &BASE64URL.encode(r#"{"alg":"HS256","alg":"none","kid":"HS256"}"#),
                &BASE64URL.encode(claims().to_string()),
                SECRET,
            ),
        ),
        ("expired", says("exp", json!(now() - 60))),
        ("expired long ago", says("exp", json!(0))),
        ("expires as text", says("exp", json!("9999999999"))),
        ("expires before time", says("exp", json!(-1))),
        ("expires at infinity", says("exp", json!("inf"))),
        ("not yet", says("nbf", json!(now() + 3600))),
        ("another issuer", says("iss", json!("evil"))),
        ("several issuers", says("iss", json!(["login", "evil"]))),
        ("no issuer", signed(&header(), &without(claims(), "iss"))),
        ("another audience", says("aud", json!("bank"))),
        ("other audiences", says("aud", json!(["bank", "shops"]))),
        ("no audience", signed(&header(), &without(claims(), "aud"))),
        ("empty audience", says("aud", json!([]))),
        ("no subject", signed(&header(), &without(claims(), "sub"))),
        ("empty subject", says("sub", json!(""))),
        ("subject is no text", says("sub", json!(1))),
        ("long subject", says("sub", json!("x".repeat(256)))),
        (
            "two subjects",
            raw(r#"{"sub":"al","sub":"root","iss":"login","aud":"shop"}"#),
        ),
        ("claims are a list", raw("[]")),
        ("claims are no JSON", raw("{")),
        (
            "claims are not UTF-8",
            hs256_raw(
                &BASE64URL.encode(header().to_string()),
                &BASE64URL.encode(with_invalid_utf8(&claims())),
                SECRET,
            ),
        ),
        (
            "header is not UTF-8",
            hs256_raw(
                &BASE64URL.encode(with_invalid_utf8(&header())),
                &BASE64URL.encode(claims().to_string()),
                SECRET,
            ),
        ),
        ("five parts", format!("{good}.x.y")),
        ("a leading dot", format!(".{good}")),
        ("a trailing dot", format!("{good}.")),
        ("padding", format!("{good}=")),
        ("a space", format!("{message} .{signature}")),
        ("a megabyte", says("jti", json!("x".repeat(1 << 20)))),
    ];
    // The public key as the secret of an HMAC: it is what everybody knows.
    for (id, public) in [("RS256", RS256_PUBLIC), ("ES256", ES256_PUBLIC)] {
        let header = with(header(), "kid", json!(id));
        attacks.push((
            "public PEM as secret",
            hs256(&header, &claims(), &pem(public)),
        ));
        attacks.push((
            "public PEM, trimmed, as secret",
            hs256(&header, &claims(), pem(public).trim_ascii()),
        ));
        attacks.push((
            "public DER as secret",
            hs256(&header, &claims(), &der(public)),
        ));
    }
    attacks
}

/// A manager that notes refusals, on this store.
fn manager(store: impl SessionStore) -> (TokenManager, Arc<Mutex<Vec<RefusalReason>>>) {
    let refusals: Arc<Mutex<Vec<RefusalReason>>> = Arc::default();
    let note = Arc::clone(&refusals);
    let manager = TokenManager::builder(store)
        .jwt(strict())
        .on_event(move |event| {
            if let EventKind::Refused { reason, .. } = event.kind() {
                note.lock().unwrap().push(reason);
            }
        })
        .build()
        .unwrap();
    (manager, refusals)
}

#[tokio::test]
async fn attacks_are_refused_without_a_store_call() {
    let faults = Faults::new();
    let (manager, refusals) = manager(faults.wrap(MemoryStore::new()));
    let verifier = JwtVerifier::builder(verifying_keys())
        .issuer("login")
        .audience("shop")
        .build()
        .unwrap();
    for (name, token) in attacks() {
        assert!(
            manager.check_token(&token).await.unwrap().is_none(),
            "{name}"
        );
        assert!(!manager.delete_token(&token).await.unwrap(), "{name}");
        assert!(
            !manager.refresh_token(&token, None).await.unwrap(),
            "{name}"
        );
        assert_eq!(faults.calls(), 0, "{name}");
        let told = std::mem::take(&mut *refusals.lock().unwrap());
        assert_eq!(told.len(), 3, "{name}");
        let expected = |reason: &RefusalReason| {
            matches!(
                reason,
                RefusalReason::Malformed | RefusalReason::NotVerified
            )
        };
        assert!(told.iter().all(expected), "{name}: {told:?}");
        assert!(verifier.verify(&token).is_err(), "{name}");
    }
}

/// The same token without any of that would be accepted, and asked for in the store: the tests above are about what
/// they say.
#[tokio::test]
async fn the_token_of_the_attacks_is_a_good_one() {
    let faults = Faults::new();
    let (manager, refusals) = manager(faults.wrap(MemoryStore::new()));
    let mut calls = 0;
    for claims in [
        claims(),
        with(claims(), "aud", json!(["bank", "shop"])),
        with(claims(), "nbf", json!(now() - 60)),
        with(claims(), "exp", json!(now() - 2)),
        with(claims(), "exp", json!(now() as f64 + 0.5)),
        without(claims(), "jti"),
    ] {
        for header in [
            header(),
            without(header(), "typ"),
            with(header(), "typ", json!("jwt")),
            with(header(), "typ", json!("Application/JWT")),
        ] {
            let token = hs256(&header, &claims, SECRET);
            assert!(manager.check_token(&token).await.unwrap().is_none());
            calls += 1;
            assert_eq!(faults.calls(), calls, "{header} {claims}");
            assert_eq!(
                std::mem::take(&mut *refusals.lock().unwrap()),
                [RefusalReason::NotLive]
            );
        }
    }
}

/// An audience that nobody asked for is somebody else's (RFC 7519 §4.1.3).
#[tokio::test]
async fn an_audience_is_not_for_those_who_have_none() {
    let key = SigningKey::hs256("HS256", SECRET).unwrap();
    let verifier = JwtVerifier::builder([key.verifying_key().clone()])
        .build()
        .unwrap();
    assert!(
        verifier
            .verify(&hs256(&header(), &claims(), SECRET))
            .is_err()
    );
    for odd in [json!(5), json!({"x": 1}), json!(["bank", 5]), json!([])] {
        let token = hs256(&header(), &with(claims(), "aud", odd.clone()), SECRET);
        assert!(verifier.verify(&token).is_err(), "{odd}");
    }
    let nobodys = without(claims(), "aud");
    assert!(verifier.verify(&hs256(&header(), &nobodys, SECRET)).is_ok());
}

/// Redis sees not one command of ten thousand forged tokens.
#[tokio::test]
async fn redis_hears_nothing_of_forged_tokens() {
    let redis = Redis::start().await;
    let (manager, _) = manager(redis.store().await);
    let live = manager.set_token("al", None).await.unwrap();
    assert!(
        manager
            .check_token(live.expose_secret())
            .await
            .unwrap()
            .is_some()
    );
    let forging = async {
        for n in 0..10_000_u64 {
            let claims = with(claims(), "jti", json!(n));
            let token = hs256(&header(), &claims, &[b'x'; 32]);
            assert!(manager.check_token(&token).await.unwrap().is_none());
        }
    };
    let (calls, ()) = commands_of(redis.server(), forging).await;
    assert!(calls.is_empty(), "{calls:?}");
}

/// RFC 7519 §4.1.4: a token is refused on its `exp`, and not a second before; the leeway is added to that.
#[tokio::test]
async fn a_token_ends_on_time() {
    let key = SigningKey::hs256("HS256", SECRET).unwrap();
    for leeway in [0, 100] {
        let verifier = JwtVerifier::builder([key.verifying_key().clone()]);
        let verifier = verifier
            .leeway(Duration::from_secs(leeway))
            .build()
            .unwrap();
        // Once more, if a second has passed meanwhile.
        loop {
            let start = now();
            let verified = [start - leeway, start - leeway + 1].map(|exp| {
                let claims = json!({"sub": "al", "exp": exp});
                verifier.verify(&hs256(&header(), &claims, SECRET)).is_ok()
            });
            if now() == start {
                assert_eq!(verified, [false, true]);
                break;
            }
        }
    }
}
