//! Keys in PEM texts, and their ids.
//!
//! The first line is the id of the key; the rest is the text.
//!
//! - A text is a key of at most one algorithm.
//! - What is published of an accepted key has public members only, and is accepted as a JWK Set.
//! - Neither errors, nor `Debug`, nor the published set shows the text, or the id if that is not valid.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_bearer_session::{
    Error, ErrorKind,
    jwt::{JwtConfig, JwtVerifier, SigningKey, VerifyingKey},
};
use tower_bearer_session_fuzz::shown;

const PUBLIC: [&str; 9] = ["kty", "n", "e", "crv", "x", "y", "kid", "use", "alg"];
/// The length of the parts of the text that must not be shown.
const PART: usize = 20;

fuzz_target!(|input: &str| {
    let (id, pem) = input.split_once('\n').unwrap_or((input, ""));
    let public = [
        VerifyingKey::es256,
        VerifyingKey::eddsa,
        VerifyingKey::rs256,
    ];
    let public = public.map(|read| read(id, pem).map(|key| (format!("{key:?}"), key)));
    check(id, pem, public, |key| JwtConfig::verify_only([key]));
    let private = [SigningKey::es256, SigningKey::eddsa, SigningKey::rs256];
    let private = private.map(|read| read(id, pem).map(|key| (format!("{key:?}"), key)));
    check(id, pem, private, JwtConfig::new);
});

fn check<K>(
    id: &str,
    pem: &str,
    keys: [Result<(String, K), Error>; 3],
    config: impl Fn(K) -> JwtConfig,
) {
    let mut accepted = 0;
    for key in keys {
        let (debug, key) = match key {
            Ok(key) => key,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Config);
                assert_shows_no_part(&shown(&error), id, pem);
                continue;
            }
        };
        accepted += 1;
        assert_shows_no_part(&debug, id, pem);
        assert!((1..=128).contains(&id.len()) && !id.contains(char::is_control));
        let config = config(key);
        assert_shows_no_part(&format!("{config:?}"), id, pem);
        let set = config.jwk_set();
        let json: Value = serde_json::from_str(&set).expect("JSON");
        for name in json["keys"][0].as_object().expect("a key").keys() {
            assert!(PUBLIC.contains(&&**name), "{set}");
        }
        assert_eq!(json["keys"][0]["kid"], id);
        let verifier = JwtVerifier::from_jwk_set(&set).expect("a set that is accepted");
        assert!(verifier.ignored_keys().is_empty(), "{set}");
        verifier.build().expect("a verifier");
    }
    assert!(accepted <= 1);
}

#[track_caller]
fn assert_shows_no_part(text: &str, id: &str, pem: &str) {
    let id_is_valid = (1..=128).contains(&id.len()) && !id.contains(char::is_control);
    assert!(
        id_is_valid || id.len() < PART || !text.contains(id),
        "{text}"
    );
    let is_base64 = |line: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        line.len() >= PART && line.bytes().all(is_allowed)
    };
    for line in pem
        .lines()
        .filter(|line| is_base64(line) && !id.contains(line))
    {
        assert!(!text.contains(line), "{text}");
    }
}
