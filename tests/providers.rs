//! The crate chooses no cryptography for the whole process. In a process of its own, because a default is for all of
//! it.

#![allow(clippy::unwrap_used)]

use tower_bearer_session::{
    ErrorKind, MemoryStore, MySqlStore, RedisStore, TokenManager, TokenOptions,
    jwt::{JwtConfig, JwtVerifier, SigningKey, VerifyingKey},
};

#[tokio::test]
async fn keys_and_stores_install_no_crypto_provider() {
    let read = |name: &str| {
        let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/services/jwt/keys");
        std::fs::read_to_string(format!("{keys}/{name}")).unwrap()
    };
    let keys = [
        SigningKey::hs256("HS256", &[7; 32]),
        SigningKey::es256("ES256", &read("es256.pem")),
        SigningKey::eddsa("EdDSA", &read("eddsa.pem")),
        SigningKey::rs256("RS256", &read("rs256.pem")),
    ]
    .map(Result::unwrap);
    VerifyingKey::es256("public", &read("es256.pub.pem")).unwrap();
    for key in keys {
        let config = JwtConfig::new(key);
        let set = config.jwk_set();
        let verifier = config.verifier().unwrap();
        let manager: TokenManager = TokenManager::builder(MemoryStore::new())
            .jwt(config)
            .build()
            .unwrap();
        let options = TokenOptions::new().max_lifetime(std::time::Duration::from_secs(60));
        let token = manager.set_token_with("al", options).await.unwrap().token;
        assert!(verifier.verify(token.expose_secret()).is_ok());
        if let Ok(published) = JwtVerifier::from_jwk_set(&set) {
            let published = published.build().unwrap();
            assert!(published.verify(token.expose_secret()).is_ok());
        }
    }
    let rustls = rustls::crypto::CryptoProvider::get_default;
    assert!(rustls().is_none(), "keys installed a provider for rustls");

    let ca = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&ca).unwrap().pem();
    // Nobody listens there.
    let redis = RedisStore::builder("rediss://localhost:1")
        .tls_roots(&*certificate)
        .tls_client_certificate(&*certificate, ca.serialize_pem())
        .connect()
        .await;
    assert_eq!(redis.unwrap_err().kind(), ErrorKind::Unavailable);
    let mysql = MySqlStore::builder("mysql://u@localhost:1/db")
        .tls(true)
        .tls_roots(&*certificate)
        .connect()
        .await;
    assert_eq!(mysql.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(
        rustls().is_none(),
        "a store installed a provider for rustls"
    );

    // It can be installed once, and nobody has.
    let free = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    assert!(free.is_ok(), "keys installed a provider for jsonwebtoken");
}
