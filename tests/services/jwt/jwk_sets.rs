//! How each case of a key in a JWK Set is treated: the rows of the table in the documentation of the module.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tower_bearer_session::{ErrorKind, jwt::JwtVerifier};

use super::{BASE64URL, EDDSA, ES256, RS256, SECRET, config, now, signing_keys};
use base64::Engine;

/// A key pair with its public key as this crate publishes it.
struct Pair {
    algorithm: Algorithm,
    private: EncodingKey,
    jwk: Value,
}

fn pairs() -> [Pair; 3] {
    let set: Value = serde_json::from_str(&config(&signing_keys()[0]).jwk_set()).unwrap();
    let pair = |at: usize, algorithm, private: Result<EncodingKey, _>| Pair {
        algorithm,
        private: private.unwrap(),
        jwk: set["keys"][at].clone(),
    };
    [
        pair(
            0,
            Algorithm::ES256,
            EncodingKey::from_ec_pem(ES256.as_bytes()),
        ),
        pair(
            1,
            Algorithm::EdDSA,
            EncodingKey::from_ed_pem(EDDSA.as_bytes()),
        ),
        pair(
            2,
            Algorithm::RS256,
            EncodingKey::from_rsa_pem(RS256.as_bytes()),
        ),
    ]
}

impl Pair {
    /// A token for `al` under this key id; its header names this algorithm.
    fn token(&self, kid: &str, alg: &str) -> String {
        let encoded = |value: Value| BASE64URL.encode(value.to_string());
        let header = encoded(json!({"alg": alg, "kid": kid}));
        let claims = encoded(json!({"sub": "al", "exp": now() + 60}));
        let message = format!("{header}.{claims}");
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// This key with one member set, or removed by `null`.
    fn with(&self, name: &str, value: Value) -> Value {
        let mut jwk = self.jwk.clone();
        if value.is_null() {
            jwk.as_object_mut().unwrap().remove(name);
        } else {
            jwk[name] = value;
        }
        jwk
    }

    /// This key with a zero octet before the octets of these members.
    fn with_leading_zeros(&self, names: &[&str]) -> Value {
        let mut jwk = self.jwk.clone();
        for name in names {
            let octets = BASE64URL.decode(jwk[name].as_str().unwrap()).unwrap();
            jwk[name] = json!(BASE64URL.encode([&[0], &*octets].concat()));
        }
        jwk
    }
}

/// Keys that must verify tokens, each with a token that it signed.
fn accepted() -> Vec<(&'static str, Value, String)> {
    let [ec, ed, rsa] = pairs();
    let of = |pair: &Pair| {
        pair.token(
            pair.jwk["kid"].as_str().unwrap(),
            pair.jwk["alg"].as_str().unwrap(),
        )
    };
    let (es256, eddsa, rs256) = (of(&ec), of(&ed), of(&rsa));
    let ed25519 = ed.token("EdDSA", "Ed25519");
    let mut rows = Vec::new();
    for (pair, token) in [(&ec, &es256), (&ed, &eddsa), (&rsa, &rs256)] {
        rows.extend([
            ("as published", pair.jwk.clone(), token.clone()),
            ("no alg", pair.with("alg", Value::Null), token.clone()),
            ("no use", pair.with("use", Value::Null), token.clone()),
            (
                "key_ops verify",
                pair.with("key_ops", json!(["verify"])),
                token.clone(),
            ),
            (
                "key_ops sign and verify",
                pair.with("key_ops", json!(["sign", "verify"])),
                token.clone(),
            ),
            (
                "members that nobody knows",
                pair.with("x-new", json!({"d": 1})),
                token.clone(),
            ),
            (
                "with a certificate",
                pair.with("x5c", json!(["MIIB"])),
                token.clone(),
            ),
        ]);
    }
    rows.extend([
        (
            "alg Ed25519, token EdDSA",
            ed.with("alg", json!("Ed25519")),
            eddsa.clone(),
        ),
        (
            "alg Ed25519, token Ed25519",
            ed.with("alg", json!("Ed25519")),
            ed25519.clone(),
        ),
        ("alg EdDSA, token Ed25519", ed.jwk.clone(), ed25519.clone()),
        (
            "no alg, token Ed25519",
            ed.with("alg", Value::Null),
            ed25519.clone(),
        ),
        (
            "n with a leading zero octet",
            rsa.with_leading_zeros(&["n"]),
            rs256.clone(),
        ),
        (
            "n and e with a leading zero octet",
            rsa.with_leading_zeros(&["n", "e"]),
            rs256.clone(),
        ),
    ]);
    rows
}

#[test]
fn a_key_that_is_accepted_verifies_a_token() {
    for (name, key, token) in accepted() {
        let set = json!({"keys": [key]}).to_string();
        let builder =
            JwtVerifier::from_jwk_set(&set).unwrap_or_else(|error| panic!("{name}: {error}"));
        let claims = builder.build().unwrap().verify(&token);
        assert_eq!(claims.expect(name).user_id(), "al", "{name}: {key}");
    }
}

/// Keys that must be ignored.
fn ignored() -> Vec<(&'static str, Value)> {
    let [ec, ed, rsa] = pairs();
    let b64 = |octets: &[u8]| json!(BASE64URL.encode(octets));
    let octets =
        |pair: &Pair, name: &str| BASE64URL.decode(pair.jwk[name].as_str().unwrap()).unwrap();
    let (x, y, n) = (octets(&ec, "x"), octets(&ec, "y"), octets(&rsa, "n"));
    let oct = json!({"kty": "oct", "kid": "s", "alg": "HS256", "k": b64(SECRET)});
    let mut off_the_curve = y.clone();
    off_the_curve[31] ^= 1;
    let mut rows = vec![
        ("a number", json!(7)),
        ("null", Value::Null),
        ("a list", json!([ec.jwk])),
        ("a shared secret", oct),
        ("no kty", ec.with("kty", Value::Null)),
        ("kty is no text", ec.with("kty", json!(1))),
        ("unknown kty", ec.with("kty", json!("AKP"))),
        ("kty in lower case", rsa.with("kty", json!("rsa"))),
        ("no crv", ec.with("crv", Value::Null)),
        ("P-384", ec.with("crv", json!("P-384"))),
        ("unknown crv", ec.with("crv", json!("secp256k1"))),
        ("EC with crv Ed25519", ec.with("crv", json!("Ed25519"))),
        ("X25519", ed.with("crv", json!("X25519"))),
        ("OKP with crv P-256", ed.with("crv", json!("P-256"))),
        ("no x", ec.with("x", Value::Null)),
        ("x is no text", ec.with("x", json!(1))),
        (
            "x with padding",
            ec.with("x", json!(format!("{}=", ec.jwk["x"].as_str().unwrap()))),
        ),
        (
            "x in the other alphabet",
            ec.with("x", json!("+".repeat(43))),
        ),
        ("x too short", ec.with("x", b64(&x[1..]))),
        ("x too long", ec.with("x", b64(&[&[0], &*x].concat()))),
        ("no y", ec.with("y", Value::Null)),
        ("y too short", ec.with("y", b64(&y[..31]))),
        ("a point off the curve", ec.with("y", b64(&off_the_curve))),
        ("the point 0, 0", {
            let mut key = ec.with("x", b64(&[0; 32]));
            key["y"] = b64(&[0; 32]);
            key
        }),
        ("Ed25519 x too short", ed.with("x", b64(&[1; 31]))),
        ("Ed25519 x too long", ed.with("x", b64(&[1; 33]))),
        ("Ed25519 without x", ed.with("x", Value::Null)),
        // With each of them one signature fits any message, or one in a few.
        (
            "Ed25519 identity",
            ed.with("x", b64(&ed25519_point(1, 0, 0))),
        ),
        ("Ed25519 y = 0", ed.with("x", b64(&[0; 32]))),
        (
            "Ed25519 y = -1",
            ed.with("x", b64(&ed25519_point(0xec, 0xff, 0x7f))),
        ),
        (
            "Ed25519 y = p",
            ed.with("x", b64(&ed25519_point(0xed, 0xff, 0x7f))),
        ),
        (
            "Ed25519 y = p + 1",
            ed.with("x", b64(&ed25519_point(0xee, 0xff, 0x7f))),
        ),
        (
            "Ed25519 y = 2, no point",
            ed.with("x", b64(&ed25519_point(2, 0, 0))),
        ),
        ("RSA of 1024 bits", rsa.with("n", b64(&n[128..]))),
        (
            "RSA of 2047 bits",
            rsa.with("n", b64(&[&[0x7f], &n[1..]].concat())),
        ),
        (
            "RSA of 1024 bits behind zeros",
            rsa.with("n", b64(&[&[0; 128], &n[128..]].concat())),
        ),
        ("RSA of 16384 bits", rsa.with("n", b64(&n.repeat(8)))),
        ("n is even", rsa.with("n", b64(&[&n[..255], &[0]].concat()))),
        ("n is 0", rsa.with("n", b64(&[0; 256]))),
        ("n is empty", rsa.with("n", json!(""))),
        ("e is 0", rsa.with("e", b64(&[0]))),
        ("e is 1", rsa.with("e", b64(&[1]))),
        ("e is even", rsa.with("e", b64(&[1, 0, 0]))),
        ("e is very large", rsa.with("e", b64(&[0xff; 32]))),
        (
            "x5c only",
            json!({"kty": "RSA", "kid": "k", "x5c": ["MIIB"]}),
        ),
    ];
    for pair in [&ec, &ed, &rsa] {
        rows.extend([
            ("no kid", pair.with("kid", Value::Null)),
            ("kid is no text", pair.with("kid", json!(7))),
            ("kid is empty", pair.with("kid", json!(""))),
            ("kid is very long", pair.with("kid", json!("k".repeat(129)))),
            ("for encryption", pair.with("use", json!("enc"))),
            ("for an unknown use", pair.with("use", json!("tls"))),
            ("use is no text", pair.with("use", json!(["sig"]))),
            ("key_ops sign", pair.with("key_ops", json!(["sign"]))),
            ("key_ops encrypt", pair.with("key_ops", json!(["encrypt"]))),
            ("key_ops empty", pair.with("key_ops", json!([]))),
            ("key_ops is no list", pair.with("key_ops", json!("verify"))),
            (
                "key_ops twice the same",
                pair.with("key_ops", json!(["verify", "verify"])),
            ),
            (
                "key_ops verify and encrypt",
                pair.with("key_ops", json!(["verify", "encrypt"])),
            ),
            ("alg of other keys", pair.with("alg", json!("HS256"))),
            ("alg none", pair.with("alg", json!("none"))),
            ("alg unknown", pair.with("alg", json!("ES256K"))),
            ("alg is no text", pair.with("alg", json!(1))),
            ("private", pair.with("d", json!("AAAA"))),
        ]);
    }
    rows.extend([
        ("alg RS512", rsa.with("alg", json!("RS512"))),
        ("alg PS256", rsa.with("alg", json!("PS256"))),
        ("alg ES384", ec.with("alg", json!("ES384"))),
        ("alg Ed448", ed.with("alg", json!("Ed448"))),
        ("a private factor", rsa.with("p", json!("AAAA"))),
    ]);
    rows
}

/// An encoding of this first octet, these octets between, and this last one.
fn ed25519_point(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut octets = [between; 32];
    (octets[0], octets[31]) = (first, last);
    octets
}

/// RFC 7517 §5: a key that cannot be used is passed over, and a set without any other is an error.
#[test]
fn a_key_that_cannot_be_used_is_ignored() {
    let [ec, ..] = pairs();
    let good = ec.with("kid", json!("good"));
    for (name, key) in ignored() {
        let id = key.get("kid").and_then(Value::as_str);
        let id = id.filter(|id| (1..=128).contains(&id.len()));
        let alone = JwtVerifier::from_jwk_set(&json!({"keys": [key]}).to_string());
        let error = alone.map(drop).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Config, "{name}");
        let both = json!({"keys": [key, good]}).to_string();
        let builder = JwtVerifier::from_jwk_set(&both).unwrap();
        let verifier = builder.clone().build().unwrap();
        assert!(
            verifier.verify(&ec.token("good", "ES256")).is_ok(),
            "{name}"
        );
        // It is told, and without anything of the key but its id.
        assert_eq!(verifier.ignored_keys(), builder.ignored_keys());
        let [told] = verifier.ignored_keys() else {
            panic!("{name}: {:?}", verifier.ignored_keys());
        };
        assert_eq!((told.position(), told.id()), (0, id), "{name}");
        let shown = format!("{told} {told:?} {error} {error:?}");
        assert!(shown.contains(told.reason()), "{name}: {shown}");
        for member in ["n", "x", "y", "d", "k"] {
            let Some(text) = key.get(member).and_then(Value::as_str) else {
                continue;
            };
            assert!(text.len() < 8 || !shown.contains(text), "{name}: {shown}");
        }
    }
}

/// What a reader of a log has to know.
#[test]
fn an_ignored_key_is_told_by_its_position_and_id_and_the_reason() {
    let [ec, ..] = pairs();
    let keys = [
        ec.jwk.clone(),
        json!(7),
        ec.with("use", json!("enc")),
        ec.jwk.clone(),
    ];
    let builder = JwtVerifier::from_jwk_set(&json!({ "keys": keys }).to_string()).unwrap();
    let told: Vec<_> = builder
        .ignored_keys()
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "keys[1]: it is no object",
        "keys[2] (\"ES256\"): its `use` is not `sig`",
        "keys[3] (\"ES256\"): a key before it has the same `kid` and algorithm",
    ];
    assert_eq!(told, expected);
}

/// RFC 7517 §4: readers differ in which of two members with one name counts, so the key is not used.
#[test]
fn a_key_with_two_members_of_one_name_is_ignored() {
    let pairs = pairs();
    let good = pairs[0].with("kid", json!("good"));
    for pair in &pairs {
        for (name, value) in pair.jwk.as_object().unwrap() {
            let twice = pair
                .jwk
                .to_string()
                .replacen('{', &format!("{{\"{name}\":{value},"), 1);
            let set = format!(r#"{{"keys":[{twice},{good}]}}"#);
            let builder = JwtVerifier::from_jwk_set(&set).unwrap();
            assert_eq!(builder.ignored_keys().len(), 1, "{set}");
            assert!(
                builder.ignored_keys()[0].reason().contains("same name"),
                "{set}"
            );
        }
    }
}

/// RFC 7517 §4.5: keys of different types may share an id; the algorithm of the token says which one counts.
#[test]
fn keys_of_different_types_may_share_an_id() {
    let pairs = pairs();
    let keys: Vec<_> = pairs
        .iter()
        .map(|pair| pair.with("kid", json!("k")))
        .collect();
    let verifier = JwtVerifier::from_jwk_set(&json!({ "keys": keys }).to_string());
    let verifier = verifier.unwrap().build().unwrap();
    for (pair, alg) in pairs.iter().zip(["ES256", "EdDSA", "RS256"]) {
        assert!(verifier.verify(&pair.token("k", alg)).is_ok(), "{alg}");
        for other in ["ES256", "EdDSA", "RS256", "HS256", "none"] {
            let accepted = verifier.verify(&pair.token("k", other)).is_ok();
            assert_eq!(accepted, other == alg, "{alg} as {other}");
        }
    }
}

#[test]
fn what_is_no_jwk_set_is_refused() {
    let [ec, ..] = pairs();
    let twice = format!(r#"{{"keys":[{0}],"keys":[{0}]}}"#, ec.jwk);
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":null}"#,
        &twice,
    ] {
        let error = JwtVerifier::from_jwk_set(bad).map(drop).expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
    }
    // One key without the set around it.
    assert!(JwtVerifier::from_jwk_set(&ec.jwk.to_string()).is_err());
}
