//! JWK Sets.
//!
//! - A key is used only if this file, too, finds that it is a public key, for signatures, and not a weak one.
//! - Under no accepted set anybody makes a token without the private key: with constant signatures, with the encoded
//!   hash as an RSA signature, or with an HMAC whose secret is in the set.
//! - Neither errors nor ignored keys show anything of a key but its id, and that has no control characters.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower_bearer_session::{ErrorKind, jwt::JwtVerifier};
use tower_bearer_session_fuzz::{
    decode_base64url,
    jwt::{base64url, hmac},
    shown,
};

const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// The texts of errors and reasons are shorter, apart from what they quote; a member that is longer is not in them by
/// chance.
const LONG: usize = 24;

/// The `y` of the points of small order on Ed25519, without the sign of `x`.
static SMALL_ORDER: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let points = [
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU",
        "xxdqcD1N2LpMO5wBC1yBaDf0H3mKzsfkHc2oF7W1A3o",
        "7P___________________________________________38",
        "7f___________________________________________38",
        "7v___________________________________________38",
    ];
    let points = points.into_iter().filter_map(decode_base64url);
    points.filter(|point| point.len() == 32).collect()
});

/// Whether a JWK may be used, as far as that can be told without arithmetic on curves; and its algorithm.
fn algorithm(jwk: &Value) -> Option<&'static str> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let octets = |name: &str| text(name).and_then(decode_base64url);
    let is_private = PRIVATE.iter().any(|name| jwk.get(*name).is_some());
    if is_private || jwk.get("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops") {
        let operations: Vec<&str> = operations
            .as_array()?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if !matches!(
            operations[..],
            ["verify"] | ["verify", "sign"] | ["sign", "verify"]
        ) {
            return None;
        }
    }
    let algorithm = match (text("kty")?, text("crv")) {
        ("EC", Some("P-256")) => {
            let (x, y) = (octets("x")?, octets("y")?);
            ((x.len(), y.len()) == (32, 32) && x != y).then_some("ES256")?
        }
        ("OKP", Some("Ed25519")) => {
            let mut x = octets("x").filter(|x| x.len() == 32)?;
            x[31] &= 0x7f;
            (!SMALL_ORDER.contains(&x)).then_some("EdDSA")?
        }
        ("RSA", _) => {
            let number = |name: &str| {
                let octets = octets(name)?;
                let zeros = octets.iter().take_while(|octet| **octet == 0).count();
                Some(octets[zeros..].to_vec())
            };
            let (n, e) = (number("n")?, number("e")?);
            let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
            let is_odd = n.last()? % 2 == 1 && e.last()? % 2 == 1;
            ((2048..=8192).contains(&bits) && is_odd && e != [1] && e.len() <= 4)
                .then_some("RS256")?
        }
        _ => return None,
    };
    let alg = jwk.get("alg").map(|alg| alg.as_str().unwrap_or_default());
    let alg_is_right = match alg {
        None => true,
        Some("Ed25519") => algorithm == "EdDSA",
        Some(alg) => alg == algorithm,
    };
    alg_is_right.then_some(algorithm)
}

/// All signatures that everybody can make for a message.
fn forgeries(message: &str, jwk: &Value) -> Vec<Vec<u8>> {
    let octets = |name: &str| {
        jwk.get(name)
            .and_then(Value::as_str)
            .and_then(decode_base64url)
    };
    let mut identity = vec![0; 64];
    identity[0] = 1;
    let mut forgeries = vec![Vec::new(), vec![0; 64], vec![1; 64], identity];
    if let Some(x) = octets("x") {
        forgeries.push([&*x, &[0; 32]].concat());
        forgeries.push([&*x, &x].concat());
    }
    if let Some(n) = octets("n").filter(|n| n.len() > 64) {
        // RFC 8017 §9.2, which is its own signature if the exponent is 1.
        let info = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
        let zeros = n.iter().take_while(|octet| **octet == 0).count();
        let len = n.len() - zeros;
        let mut encoded = vec![0, 1];
        encoded.resize(len.saturating_sub(info.len() + 33).max(2), 0xff);
        encoded.push(0);
        encoded.extend(info);
        encoded.extend(Sha256::digest(message));
        let mut one = vec![0; len];
        *one.last_mut().expect("a modulus") = 1;
        forgeries.extend([encoded, vec![0; len], one]);
    }
    for name in ["x", "y", "n", "k"] {
        let text = jwk.get(name).and_then(Value::as_str).unwrap_or_default();
        forgeries.push(hmac(text.as_bytes(), message));
        forgeries.extend(octets(name).map(|secret| hmac(&secret, message)));
    }
    forgeries
}

fuzz_target!(|set: &str| {
    let json: Option<Value> = serde_json::from_str(set).ok();
    let keys = json
        .as_ref()
        .and_then(|json| json.get("keys")?.as_array())
        .map_or(&[][..], |keys| keys);
    let builder = match JwtVerifier::from_jwk_set(set) {
        Ok(builder) => builder,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_shows_no_member(&shown(&error), keys);
            return;
        }
    };
    let verifier = builder.clone().build().expect("a verifier");
    let ignored = verifier.ignored_keys();
    assert_eq!(ignored, builder.ignored_keys());
    let texts = ignored.iter().map(|key| format!("{key}\n{key:?}"));
    let text = format!(
        "{builder:?} {verifier:?} {}",
        texts.collect::<Vec<_>>().join(" ")
    );
    assert_shows_no_member(&text, keys);

    assert!(ignored.len() < keys.len());
    for (at, jwk) in keys.iter().enumerate() {
        let kid = jwk.get("kid").and_then(Value::as_str);
        let is_ignored = ignored.iter().any(|key| key.position() == at);
        if !is_ignored {
            assert!(algorithm(jwk).is_some(), "{jwk}");
            assert!(kid.is_some_and(|id| (1..=128).contains(&id.len())), "{jwk}");
        }
        for alg in ["ES256", "EdDSA", "Ed25519", "RS256", "HS256", "none"] {
            let header = json!({"alg": alg, "kid": kid}).to_string();
            let claims = json!({"sub": "root", "exp": 4_102_444_800_u64}).to_string();
            let message = format!("{}.{}", base64url(header), base64url(claims));
            for signature in forgeries(&message, jwk) {
                let token = format!("{message}.{}", base64url(signature));
                assert!(verifier.verify(&token).is_err(), "{token}");
            }
        }
    }
});

/// Checks that a text shows no long member of a key but its id, and no control character.
#[track_caller]
fn assert_shows_no_member(text: &str, keys: &[Value]) {
    assert!(
        !text.contains(|char: char| char.is_control() && char != '\n'),
        "{text:?}"
    );
    let ids: Vec<&str> = keys
        .iter()
        .filter_map(|key| key.get("kid")?.as_str())
        .collect();
    let members = keys.iter().filter_map(Value::as_object).flatten();
    for (name, value) in members.filter_map(|(name, value)| Some((name, value.as_str()?))) {
        let is_secret = name != "kid"
            && value.len() >= LONG
            && !ids.iter().any(|id| id.contains(value))
            && !text.contains(&format!("its `{value}"));
        assert!(!is_secret || !text.contains(value), "{name} in {text}");
    }
}
