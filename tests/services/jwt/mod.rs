//! Tokens that are JWTs.

mod attacks;
mod claims;
mod guards;
mod jwk_sets;
mod keys;
mod layer;
mod mutations;
mod peer;
mod points;
mod replacements;
mod rotation;
mod spellings;
mod tokens;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};
use tower_bearer_session::{
    Error, MemoryStore, TokenManager,
    jwt::{JwtConfig, SigningKey, VerifyingKey},
    test_util::{Faults, FaultyStore},
};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const ES256: &str = include_str!("keys/es256.pem");
const ES256_PUBLIC: &str = include_str!("keys/es256.pub.pem");
const EDDSA: &str = include_str!("keys/eddsa.pem");
const EDDSA_PUBLIC: &str = include_str!("keys/eddsa.pub.pem");
const RS256: &str = include_str!("keys/rs256.pem");
const RS256_PUBLIC: &str = include_str!("keys/rs256.pub.pem");

/// A key of each algorithm, under the id of its algorithm.
fn signing_keys() -> [SigningKey; 4] {
    [
        SigningKey::hs256("HS256", SECRET),
        SigningKey::es256("ES256", ES256),
        SigningKey::eddsa("EdDSA", EDDSA),
        SigningKey::rs256("RS256", RS256),
    ]
    .map(Result::unwrap)
}

/// The counterparts, from what is public.
fn verifying_keys() -> [VerifyingKey; 4] {
    [
        VerifyingKey::hs256("HS256", SECRET),
        VerifyingKey::es256("ES256", ES256_PUBLIC),
        VerifyingKey::eddsa("EdDSA", EDDSA_PUBLIC),
        VerifyingKey::rs256("RS256", RS256_PUBLIC),
    ]
    .map(Result::unwrap)
}

/// A configuration that signs with one of the keys and accepts all of them.
fn config(signing: &SigningKey) -> JwtConfig {
    let others = verifying_keys();
    let others = others
        .into_iter()
        .filter(|key| key.id() != signing.verifying_key().id());
    others.fold(JwtConfig::new(signing.clone()), JwtConfig::accept)
}

/// A manager on a store whose calls are counted.
fn counted(config: JwtConfig) -> (TokenManager, Faults) {
    let faults = Faults::new();
    let store: FaultyStore<MemoryStore> = faults.wrap(MemoryStore::new());
    let manager = built(store, config).unwrap();
    (manager, faults)
}

fn built(
    store: impl tower_bearer_session::SessionStore,
    config: JwtConfig,
) -> Result<TokenManager, Error> {
    TokenManager::builder(store).jwt(config).build()
}

/// Header and claims of a token.
fn parts(token: &str) -> [Value; 2] {
    let mut parts = token.split('.').map(|part| {
        let json = BASE64URL.decode(part).expect("base64url");
        serde_json::from_slice(&json).unwrap_or(Value::Null)
    });
    [parts.next().unwrap(), parts.next().unwrap()]
}

/// A token of this header and these claims, signed with HMAC-SHA-256 and this key.
pub(crate) fn hs256(header: &Value, claims: &Value, key: &[u8]) -> String {
    let encoded = |value: &Value| BASE64URL.encode(value.to_string());
    hs256_raw(&encoded(header), &encoded(claims), key)
}

fn hs256_raw(header: &str, claims: &str, key: &[u8]) -> String {
    let message = format!("{header}.{claims}");
    let key = jsonwebtoken::EncodingKey::from_secret(key);
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// The order of the group of P-256 (SEC 2, §2.4.2).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The same ES256 token with the signature (r, n - s), which is valid wherever (r, s) is, and needs no key.
fn respelled(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut signature = BASE64URL.decode(signature).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let digit = i16::from(P256_ORDER[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        signature[32 + at] = digit.rem_euclid(256) as u8;
    }
    format!("{message}.{}", BASE64URL.encode(signature))
}

/// The header of tokens that are signed with [`SECRET`].
fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT", "kid": "HS256"})
}

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}
