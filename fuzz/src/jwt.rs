//! The keys of the JWT targets: those of the crate's tests.

use std::sync::LazyLock;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use tower_bearer_session::jwt::VerifyingKey;

pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const ES256: &str = include_str!("../../tests/services/jwt/keys/es256.pem");
const EDDSA: &str = include_str!("../../tests/services/jwt/keys/eddsa.pem");
const RS256: &str = include_str!("../../tests/services/jwt/keys/rs256.pem");
pub const ES256_PUBLIC: &str = include_str!("../../tests/services/jwt/keys/es256.pub.pem");
pub const EDDSA_PUBLIC: &str = include_str!("../../tests/services/jwt/keys/eddsa.pub.pem");
pub const RS256_PUBLIC: &str = include_str!("../../tests/services/jwt/keys/rs256.pub.pem");

/// The algorithms, which are also the ids of their keys.
pub const ALGORITHMS: [&str; 4] = ["HS256", "ES256", "EdDSA", "RS256"];

/// A verifying key of each algorithm.
pub fn verifying_keys() -> [VerifyingKey; 4] {
    [
        VerifyingKey::hs256("HS256", SECRET),
        VerifyingKey::es256("ES256", ES256_PUBLIC),
        VerifyingKey::eddsa("EdDSA", EDDSA_PUBLIC),
        VerifyingKey::rs256("RS256", RS256_PUBLIC),
    ]
    .map(|key| key.expect("a key"))
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The content of a PEM text.
pub fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    STANDARD
        .decode(lines.collect::<String>())
        .expect("a PEM text")
}

pub fn hmac(secret: &[u8], message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

/// Signs with the private key of one of the [`ALGORITHMS`].
pub fn sign(algorithm: usize, message: &str) -> Vec<u8> {
    static KEYS: LazyLock<(EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair)> = LazyLock::new(|| {
        let ecdsa = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der(ES256));
        (
            ecdsa.expect("a key"),
            Ed25519KeyPair::from_pkcs8(&der(EDDSA)).expect("a key"),
            RsaKeyPair::from_pkcs8(&der(RS256)).expect("a key"),
        )
    });
    let (ecdsa, ed25519, rsa) = &*KEYS;
    let (random, bytes) = (SystemRandom::new(), message.as_bytes());
    match ALGORITHMS[algorithm] {
        "HS256" => hmac(SECRET, message),
        "ES256" => ecdsa
            .sign(&random, bytes)
            .expect("a signature")
            .as_ref()
            .to_vec(),
        "EdDSA" => ed25519.sign(bytes).as_ref().to_vec(),
        _ => {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)
                .expect("a signature");
            signature
        }
    }
}
