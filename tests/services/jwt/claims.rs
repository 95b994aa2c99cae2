//! Claims of one's own, and those by the scopes and the authentication of a session.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokio::runtime::{Handle, Runtime};
use tower_bearer_session::{
    Error, ErrorKind, IssuedToken, MemoryStore, ReplaceOptions, Replacement, TokenManager,
    TokenOptions,
    jwt::{JwtConfig, JwtSession, JwtVerifier, SigningKey, VerifiedClaims},
};

use super::{SECRET, built, config, header, hs256, now, parts, signing_keys};
use crate::stores::{Backend, HOUR, cases};

mod memory {
    super::cases!(Memory: claims_that_cannot_be_are_refused_before_anything_is_stored,
        claims_follow_a_replacement, a_lost_race_mints_anew, a_token_is_one_that_is_accepted);
}
mod redis {
    super::cases!(Redis: claims_that_cannot_be_are_refused_before_anything_is_stored,
        claims_follow_a_replacement, a_lost_race_mints_anew, a_token_is_one_that_is_accepted);
}
mod mysql {
    super::cases!(MySql: claims_that_cannot_be_are_refused_before_anything_is_stored,
        claims_follow_a_replacement, a_lost_race_mints_anew, a_token_is_one_that_is_accepted);
}

/// The claims that an application cannot set.
const RESERVED: [&str; 11] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "sid",
    "client_id",
    "scope",
    "auth_time",
];

fn plain() -> JwtConfig {
    config(&signing_keys()[0])
}

async fn manager(backend: &impl Backend, config: JwtConfig) -> TokenManager {
    let builder = backend.manager_builder().await;
    builder.jwt(config).build().unwrap()
}

fn verify(verifier: &JwtVerifier, issued: &IssuedToken) -> VerifiedClaims {
    verifier.verify(issued.token.expose_secret()).unwrap()
}

async fn replaced(
    manager: &TokenManager,
    issued: &IssuedToken,
    options: ReplaceOptions,
) -> IssuedToken {
    let replacement = manager.replace_token(issued.token.expose_secret(), options);
    match replacement.await.unwrap() {
        Replacement::Replaced { issued, .. } => issued,
        other => panic!("{other:?}"),
    }
}

/// Metadata of sessions in these tests.
#[derive(Debug, PartialEq, serde::Deserialize)]
struct Device {
    tenant: String,
}

/// The claims of these tests: the tenant, and what the function was told.
fn of_tenant(session: &JwtSession<'_>) -> Result<Value, Error> {
    let device: Device = session.metadata_as()?;
    assert_eq!(session.metadata()["tenant"], device.tenant);
    Ok(json!({
        "tenant": device.tenant,
        "may": session.scopes(),
        "roles": [session.user_id(), null, { "n": 1.5 }],
    }))
}

/// What the function is told, and what a verifier finds.
#[tokio::test]
async fn claims_are_decided_by_the_session() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let config = plain().claims(move |session| {
        let times = [
            session.issued_at(),
            session.created_at(),
            session.authenticated_at(),
            session.ends_at(),
        ];
        log.lock().unwrap().push(times);
        let debug = format!("{session:?}");
        assert!(debug.contains("al") && !debug.contains("acme"), "{debug}");
        of_tenant(session)
    });
    let verifier = config.verifier().unwrap();
    let manager = built(MemoryStore::new(), config).unwrap();
    let before = SystemTime::now();
    let options = TokenOptions::new().max_lifetime(HOUR);
    let options = options.metadata("tenant", "acme").scopes(["a", "b:c"]);
    let issued = manager.set_token_with("al", options).await.unwrap();
    let claims = verify(&verifier, &issued);
    assert_eq!(claims.other()["tenant"], "acme");
    assert_eq!(claims.other()["may"], "a b:c");
    assert_eq!(claims.other()["roles"], json!(["al", null, {"n": 1.5}]));
    assert_eq!(claims.other()["scope"], "a b:c");
    assert_eq!(claims.scopes(), &"b:c a".parse().unwrap());
    let [issued_at, created_at, authenticated_at, ends_at] = told.lock().unwrap()[0];
    assert!(before <= issued_at && issued_at <= SystemTime::now());
    assert_eq!((created_at, authenticated_at), (issued_at, issued_at));
    assert_eq!(ends_at, issued_at + HOUR);
    // NumericDates of the documentation: rounded down, but for the end.
    assert_eq!(claims.authenticated_at(), claims.issued_at());
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let exp = seconds(claims.expires_at()).as_secs();
    assert_eq!(exp, seconds(ends_at).as_secs() + 1);

    // Neither scopes nor claims of one's own.
    let manager = built(MemoryStore::new(), plain()).unwrap();
    let issued = manager.set_token_with("al", TokenOptions::new());
    let claims = verify(&verifier, &issued.await.unwrap());
    assert!(claims.scopes().is_empty());
    let names: Vec<_> = claims.other().keys().collect();
    assert_eq!(names, ["auth_time"]);
}

/// Reserved claims, no object, an error of the function, too deep or too long: no session is left behind, and a session
/// whose token is to be replaced stays as it is.
async fn claims_that_cannot_be_are_refused_before_anything_is_stored(backend: &impl Backend) {
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let mut bad: Vec<(Value, ErrorKind)> = vec![
        (json!("text"), ErrorKind::Serialize),
        (json!(["sub", "al"]), ErrorKind::Serialize),
        (json!(null), ErrorKind::Serialize),
        (json!({ "deep": deep }), ErrorKind::Serialize),
        (json!({ "long": "x".repeat(4000) }), ErrorKind::InvalidInput),
    ];
    let upper = RESERVED.map(str::to_uppercase);
    for name in RESERVED.into_iter().chain(upper.iter().map(|name| &**name)) {
        let mut claims = json!({ "tenant": "acme" });
        claims[name] = json!("root");
        bad.push((claims, ErrorKind::Config));
    }
    let good = manager(backend, plain()).await;
    let live = good.set_token_with("al", TokenOptions::new()).await;
    let live = live.unwrap();
    let before = good.list_user_tokens("al").await.unwrap();
    for (claims, kind) in bad {
        let refused = claims.to_string();
        let refusing = manager(backend, plain().claims(move |_| Ok(claims.clone()))).await;
        let error = refusing.set_token("al", None).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{refused}");
        if kind == ErrorKind::Config {
            let text = error.to_string().to_lowercase();
            let is_named = |name: &&str| text.contains(&format!("`{name}`"));
            assert_eq!(RESERVED.iter().filter(|name| is_named(name)).count(), 1);
        }
        let options = ReplaceOptions::new()
            .metadata("tenant", "other")
            .end_others();
        let replacing = refusing.replace_token(live.token.expose_secret(), options);
        assert_eq!(replacing.await.unwrap_err().kind(), kind, "{refused}");
        assert_eq!(good.list_user_tokens("al").await.unwrap(), before);
    }
    let failing = plain().claims(of_tenant);
    let failing = manager(backend, failing).await;
    let error = failing.set_token("al", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialize);
    assert!(error.to_string().contains("Device"), "{error}");
    let replacing = failing.replace_token(live.token.expose_secret(), ReplaceOptions::new());
    assert_eq!(replacing.await.unwrap_err().kind(), ErrorKind::Serialize);
    assert_eq!(good.list_user_tokens("al").await.unwrap(), before);
    // The token is still the current one.
    replaced(&good, &live, ReplaceOptions::new()).await;
}

/// A new token is of the session as it is after the replacement; the replaced one stays as it was signed.
async fn claims_follow_a_replacement(backend: &impl Backend) {
    let config = plain().claims(of_tenant);
    let verifier = config.verifier().unwrap();
    let manager = manager(backend, config).await;
    let options = TokenOptions::new().metadata("tenant", "acme").scopes(["a"]);
    let first = manager.set_token_with("al", options).await.unwrap();
    let tenant_and_scope = |issued: &IssuedToken| {
        let claims = verify(&verifier, issued);
        assert_eq!(claims.token_id(), first.token.id());
        let other = claims.other();
        assert_eq!(other["may"], claims.scopes().to_string());
        assert_eq!(other.contains_key("scope"), !claims.scopes().is_empty());
        (
            other["tenant"].as_str().unwrap().to_owned(),
            claims.scopes().to_string(),
        )
    };
    let expected = |tenant: &str, scopes: &str| (tenant.to_owned(), scopes.to_owned());
    let mut last = first.clone();
    for (options, tenant, scopes) in [
        (ReplaceOptions::new(), "acme", "a"),
        (ReplaceOptions::new().scopes(["b", "c"]), "acme", "b c"),
        (
            ReplaceOptions::new().metadata("tenant", "bank"),
            "bank",
            "b c",
        ),
        (
            ReplaceOptions::new()
                .metadata("tenant", "shop")
                .scopes(["a"]),
            "shop",
            "a",
        ),
        (ReplaceOptions::new().scopes::<[&str; 0]>([]), "shop", ""),
    ] {
        last = replaced(&manager, &last, options).await;
        assert_eq!(tenant_and_scope(&last), expected(tenant, scopes));
        let listed = manager.list_user_tokens("al").await.unwrap();
        assert_eq!(listed[0].metadata()["tenant"], tenant);
        assert_eq!(listed[0].scopes().to_string(), scopes);
    }
    assert_eq!(tenant_and_scope(&first), expected("acme", "a"));
    // A change of the metadata without a new token shows in the next one.
    let renamed = manager.update_token_metadata("al", first.token.id(), |metadata| {
        metadata.insert("tenant".to_owned(), json!("late"));
    });
    assert!(renamed.await.unwrap().is_some());
    last = replaced(&manager, &last, ReplaceOptions::new()).await;
    assert_eq!(tenant_and_scope(&last), expected("late", ""));
}

/// The metadata change between the mint and the write: the token that was minted before is thrown away.
async fn a_lost_race_mints_anew(backend: &impl Backend) {
    let other = Arc::new(manager(backend, plain()).await);
    for options in [
        ReplaceOptions::new(),
        ReplaceOptions::new().metadata("device", "phone"),
        ReplaceOptions::new().scopes(["a"]).authenticated(),
    ] {
        let mints = Arc::new(AtomicUsize::new(0));
        let (counter, racing) = (Arc::clone(&mints), Arc::clone(&other));
        let config = plain().claims(move |session| {
            let claims = of_tenant(session)?;
            // The first is of the login, the second one loses.
            if counter.fetch_add(1, SeqCst) == 1 {
                let change = async {
                    let session = racing.list_user_tokens("al").await.unwrap().remove(0);
                    let changed = racing.update_token_metadata("al", session.id(), |metadata| {
                        metadata.insert("tenant".to_owned(), json!("bank"));
                    });
                    assert!(changed.await.unwrap().is_some());
                };
                tokio::task::block_in_place(|| Handle::current().block_on(change));
            }
            Ok(claims)
        });
        let verifier = config.verifier().unwrap();
        let manager = manager(backend, config).await;
        let login = TokenOptions::new().metadata("tenant", "acme");
        let first = manager.set_token_with("al", login).await.unwrap();
        assert_eq!(verify(&verifier, &first).other()["tenant"], "acme");
        let new = replaced(&manager, &first, options).await;
        assert_eq!(mints.load(SeqCst), 3);
        let claims = verify(&verifier, &new);
        assert_eq!(claims.other()["tenant"], "bank");
        let listed = manager.list_user_tokens("al").await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].metadata()["tenant"], "bank");
        assert_eq!(listed[0].scopes(), claims.scopes());
        for issued in [&first, &new] {
            let user = manager.check_token(issued.token.expose_secret()).await;
            assert!(user.unwrap().is_some());
        }
        assert_eq!(manager.delete_user_tokens("al").await.unwrap(), 1);
    }
}

/// Of any length of the claims: what is minted is accepted by manager and verifier, and can be replaced; what would be
/// too long is refused, and no session is left behind.
async fn a_token_is_one_that_is_accepted(backend: &impl Backend) {
    let length = Arc::new(AtomicUsize::new(0));
    let current = Arc::clone(&length);
    let config = plain().claims(move |_| {
        let text = "x".repeat(current.load(SeqCst));
        Ok(json!({ "text": text }))
    });
    let verifier = config.verifier().unwrap();
    let manager = manager(backend, config).await;
    let mut outcomes = [0, 0];
    for len in (2700..2950).step_by(if cfg!(debug_assertions) { 3 } else { 1 }) {
        length.store(len, SeqCst);
        match manager.set_token_with("al", TokenOptions::new()).await {
            Ok(issued) => {
                outcomes[0] += 1;
                let new = replaced(&manager, &issued, ReplaceOptions::new()).await;
                for issued in [issued, new] {
                    let token = issued.token.expose_secret();
                    assert!(token.len() <= 4096);
                    assert!(manager.check_token(token).await.unwrap().is_some());
                    assert!(verifier.verify(token).is_ok());
                }
                assert_eq!(manager.delete_user_tokens("al").await.unwrap(), 1);
            }
            Err(error) => {
                outcomes[1] += 1;
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert!(error.to_string().contains("4096"), "{error}");
                assert!(manager.list_user_tokens("al").await.unwrap().is_empty());
            }
        }
    }
    assert!(outcomes[0] > 10 && outcomes[1] > 10, "{outcomes:?}");
}

/// `auth_time` is the login, until a replacement notes another authentication.
#[tokio::test]
async fn the_authentication_is_that_of_the_session() {
    let config = plain();
    let verifier = config.verifier().unwrap();
    let manager = built(MemoryStore::new(), config).unwrap();
    let first = manager.set_token_with("al", TokenOptions::new());
    let first = first.await.unwrap();
    let at = |issued: &IssuedToken| verify(&verifier, issued).authenticated_at().unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let rotated = replaced(&manager, &first, ReplaceOptions::new()).await;
    // Not that of the rotation, although the clocks of service and store may be a moment apart.
    assert!(at(&rotated) < verify(&verifier, &rotated).issued_at().unwrap());
    let again = replaced(&manager, &rotated, ReplaceOptions::new().authenticated()).await;
    assert!(at(&again) > at(&first));
    assert_eq!(Some(at(&again)), verify(&verifier, &again).issued_at());
    let after = replaced(&manager, &again, ReplaceOptions::new()).await;
    let apart = at(&after).duration_since(at(&again)).unwrap_or_default();
    assert!(
        at(&after) > at(&first) && apart <= Duration::from_secs(10),
        "{apart:?}"
    );
}

/// A struct that serializes as an object will do.
#[tokio::test]
async fn claims_may_be_a_type_of_ones_own() {
    #[derive(serde::Serialize)]
    struct Own {
        tenant: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        acr: Option<String>,
    }
    let config = plain().claims(|session| {
        Ok(Own {
            tenant: session.user_id().to_uppercase(),
            acr: None,
        })
    });
    assert!(!format!("{config:?}").is_empty());
    let manager = built(MemoryStore::new(), config).unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    let [_, claims] = parts(token.expose_secret());
    assert_eq!(claims["tenant"], "AL");
    assert_eq!(claims.get("acr"), None);
}

/// Of another issuer: a scope claim that is not the string of RFC 8693 §4.2 grants nothing, and no token is accepted
/// that has one of these claims twice.
#[test]
fn scopes_and_authentication_of_other_issuers_are_read_by_the_rfc() {
    let verifier = plain().verifier().unwrap();
    let verified = |name: &str, value: Value| {
        let claims = json!({ "sub": "al", "exp": now() + 60, name: value });
        verifier.verify(&hs256(&header(), &claims, SECRET)).unwrap()
    };
    for (text, expected) in [
        ("read", "read"),
        ("read write", "read write"),
        (" read  write ", "read write"),
        ("", ""),
        (" ", ""),
        ("quo\"te read", ""),
        ("read\twrite", ""),
        ("read é", ""),
    ] {
        let claims = verified("scope", json!(text));
        assert_eq!(claims.scopes(), &expected.parse().unwrap(), "{text:?}");
        assert_eq!(claims.other()["scope"], text);
    }
    for odd in [json!(["read"]), json!(7), json!(null), json!({})] {
        assert!(verified("scope", odd).scopes().is_empty());
    }
    let seconds = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds));
    for (value, expected) in [
        (json!(1_700_000_000), seconds(1_700_000_000.0)),
        (json!(1_700_000_000.5), seconds(1_700_000_000.5)),
        (json!("1700000000"), None),
        (json!(-1), None),
        (json!(1e300), None),
        (json!(null), None),
    ] {
        assert_eq!(verified("auth_time", value).authenticated_at(), expected);
    }
    for twice in [
        r#""scope":"a","scope":"b""#,
        r#""auth_time":1,"auth_time":2"#,
    ] {
        let claims = format!(r#"{{"sub":"al","exp":{},{twice}}}"#, now() + 60);
        let [header, claims] = [header().to_string(), claims]
            .map(|text| base64::Engine::encode(&super::BASE64URL, text));
        let token = super::hs256_raw(&header, &claims, SECRET);
        assert!(verifier.verify(&token).is_err(), "{twice}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,6}", inner, 0..3)
                .prop_map(|object| Value::from(Map::from_iter(object))),
        ]
    })
}

proptest! {
    /// Any claims but the reserved ones, and any scopes, come back as they went in.
    #[test]
    fn claims_and_scopes_round_trip(
        own in prop::collection::btree_map("\\PC{0,8}", json_value(), 0..5),
        scopes in prop::collection::btree_set("[!#-\\[\\]-~]{1,8}", 0..6),
    ) {
        prop_assume!(RESERVED.iter().all(|name| !own.contains_key(*name)));
        let own = Map::from_iter(own);
        let claims = own.clone();
        let key = SigningKey::hs256("k", SECRET).unwrap();
        let config = JwtConfig::new(key).claims(move |_| Ok(claims.clone()));
        let verifier = config.verifier().unwrap();
        let manager = built(MemoryStore::new(), config).unwrap();
        let options = TokenOptions::new().scopes(scopes.clone());
        let runtime = Runtime::new().unwrap();
        let issued = runtime.block_on(manager.set_token_with("al", options)).unwrap();
        let verified = verify(&verifier, &issued);
        prop_assert!(verified.scopes().iter().eq(scopes.iter().map(String::as_str)));
        let mut other = verified.other().clone();
        let found = (other.remove("auth_time"), other.remove("scope"));
        prop_assert!(found.0.is_some());
        prop_assert_eq!(found.1.is_some(), !scopes.is_empty());
        prop_assert_eq!(other, own);
    }
}
