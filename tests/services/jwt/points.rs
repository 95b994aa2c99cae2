//! Which 32 octets are an Ed25519 key: the canonical encoding of a point (RFC 8032 §5.1.3) that is not of small order.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use tower_bearer_session::{
    ErrorKind,
    jwt::{JwtVerifier, VerifyingKey},
};

use super::{BASE64URL, now};

/// The `y` of all points of small order, little endian, without the sign of `x`: those of libsodium's list, of which
/// the last two are not below 2^255 - 19.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    ending(1, 0, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    ending(0xec, 0xff, 0x7f),
    ending(0xed, 0xff, 0x7f),
    ending(0xee, 0xff, 0x7f),
];

/// The first octet, those between, and the last one.
const fn ending(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut octets = [between; 32];
    octets[0] = first;
    octets[31] = last;
    octets
}

/// The encoding with each sign of `x`.
fn both_signs(y: [u8; 32]) -> [[u8; 32]; 2] {
    let mut negative = y;
    negative[31] |= 0x80;
    [y, negative]
}

fn jwk_set(x: &[u8; 32]) -> String {
    let x = BASE64URL.encode(x);
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}).to_string()
}

/// The key as RFC 8410 §4 writes it.
fn pem(x: &[u8; 32]) -> String {
    let prefix = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    let der = STANDARD.encode([&prefix[..], x].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
}

#[track_caller]
fn assert_refused(x: &[u8; 32]) {
    let told = JwtVerifier::from_jwk_set(&jwk_set(x)).map(drop);
    let told = told.expect_err(&format!("a set with {x:02x?}"));
    assert_eq!(told.kind(), ErrorKind::Config);
    let told = VerifyingKey::eddsa("k", &pem(x)).map(drop);
    let told = told.expect_err(&format!("a PEM with {x:02x?}"));
    assert_eq!(told.kind(), ErrorKind::Config);
}

/// With such a key anybody can sign anything.
#[test]
fn a_point_of_small_order_is_no_key() {
    for x in SMALL_ORDER.into_iter().flat_map(both_signs) {
        assert_refused(&x);
    }
}

/// The one signature that all tokens have in common under the neutral element: that point, and 0.
#[test]
fn a_constant_signature_verifies_nothing() {
    let mut signature = [0; 64];
    signature[0] = 1;
    let signature = BASE64URL.encode(signature);
    let header = BASE64URL.encode(json!({"alg": "EdDSA", "kid": "k"}).to_string());
    for user in ["al", "root"] {
        let claims = json!({"sub": user, "exp": now() + 60}).to_string();
        let token = format!("{header}.{}.{signature}", BASE64URL.encode(claims));
        let keys = [1, 0xee].map(|first| match first {
            1 => SMALL_ORDER[1],
            _ => SMALL_ORDER[6],
        });
        for x in keys.into_iter().flat_map(both_signs) {
            let accepted = JwtVerifier::from_jwk_set(&jwk_set(&x))
                .and_then(tower_bearer_session::jwt::JwtVerifierBuilder::build)
                .is_ok_and(|verifier| verifier.verify(&token).is_ok());
            assert!(!accepted, "{user} {x:02x?}");
        }
    }
}

#[test]
fn what_is_no_canonical_encoding_of_a_point_is_no_key() {
    // No point has this `y`.
    for x in both_signs(ending(2, 0, 0)) {
        assert_refused(&x);
    }
    for first in 0xed..=0xff {
        for x in both_signs(ending(first, 0xff, 0x7f)) {
            assert_refused(&x);
        }
    }
}

/// The same without any of that is a key.
#[test]
fn other_points_are_keys() {
    for x in both_signs(ending(3, 0, 0)) {
        assert!(JwtVerifier::from_jwk_set(&jwk_set(&x)).is_ok(), "{x:02x?}");
        assert!(VerifyingKey::eddsa("k", &pem(&x)).is_ok(), "{x:02x?}");
    }
}
