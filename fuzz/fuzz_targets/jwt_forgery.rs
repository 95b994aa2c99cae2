//! Forged JWTs: without a key, nobody makes a token that is accepted.
//!
//! The seeds have one signed token for each algorithm.
//!
//! - Only these are accepted, in their canonical text: no changed header, claim, signature or encoding.
//! - What everybody knows makes no signature: no bytes, zeros, or an HMAC with a public key as its secret.
//! - The verifier and the manager agree, and the manager takes the same user id and token id.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tower_bearer_session::{
    TokenManager,
    jwt::{JwtConfig, JwtVerifier},
};
use tower_bearer_session_fuzz::{
    AlwaysLive, block_on,
    jwt::{
        ALGORITHMS, EDDSA_PUBLIC, ES256_PUBLIC, RS256_PUBLIC, base64url, der, hmac, verifying_keys,
    },
    user_of_opaque,
};

const SIGNED: [&str; 4] = [
    include_str!("../seeds/jwt_forgery/hs256"),
    include_str!("../seeds/jwt_forgery/es256"),
    include_str!("../seeds/jwt_forgery/eddsa"),
    include_str!("../seeds/jwt_forgery/rs256"),
];

static VERIFIER: LazyLock<JwtVerifier> = LazyLock::new(|| {
    let verifier = JwtVerifier::builder(verifying_keys()).build();
    let verifier = verifier.expect("a verifier");
    for (token, algorithm) in SIGNED.into_iter().zip(ALGORITHMS) {
        let verified = verifier.verify(token);
        assert!(verified.is_ok(), "the token of {algorithm} is not accepted");
    }
    verifier
});

static MANAGER: LazyLock<TokenManager> = LazyLock::new(|| {
    let config = JwtConfig::verify_only(verifying_keys()).accept_opaque();
    let manager = TokenManager::builder(AlwaysLive).jwt(config);
    manager.build().expect("a manager")
});

fuzz_target!(|text: &str| {
    let verified = VERIFIER.verify(text);
    assert_eq!(verified.is_ok(), SIGNED.contains(&text));

    let user = block_on(MANAGER.check_token(text)).expect("no fault");
    match (&verified, user_of_opaque(text)) {
        (Ok(claims), None) => {
            let user = user.expect("a user");
            assert_eq!(user.id(), claims.user_id());
            assert_eq!(user.token_id(), Some(claims.token_id()));
        }
        (Ok(_), Some(_)) => panic!("a token of two kinds"),
        (Err(_), opaque) => assert_eq!(user.map(|user| user.id().to_owned()), opaque),
    }

    let Some((message, _)) = text.rsplit_once('.') else {
        return;
    };
    let mut signatures = vec![vec![], vec![0; 32], vec![0; 64], vec![0; 256]];
    for pem in [ES256_PUBLIC, EDDSA_PUBLIC, RS256_PUBLIC] {
        let der = der(pem);
        let secrets = [
            pem.as_bytes(),
            pem.trim().as_bytes(),
            &der,
            &der[der.len() - 32..],
        ];
        signatures.extend(secrets.map(|secret| hmac(secret, message)));
    }
    for signature in signatures {
        let forged = format!("{message}.{}", base64url(signature));
        assert!(VERIFIER.verify(&forged).is_err(), "{forged}");
    }
});
