//! Keys come and go.

use std::time::Duration;

use tower_bearer_session::{
    MemoryStore, TokenOptions,
    jwt::{JwtConfig, JwtVerifier, SigningKey},
};

use super::{EDDSA, ES256, built, config, signing_keys, verifying_keys};

/// New key accepted, then used, then the old one dropped: no session is lost on the way.
#[tokio::test]
async fn a_key_is_rotated() {
    let store = MemoryStore::new();
    let old = SigningKey::es256("old", ES256).unwrap();
    let new = SigningKey::eddsa("new", EDDSA).unwrap();
    let stages = [
        JwtConfig::new(old.clone()),
        JwtConfig::new(old.clone()).accept(new.verifying_key().clone()),
        JwtConfig::new(new.clone()).accept(old.verifying_key().clone()),
        JwtConfig::new(new),
    ];
    let managers = stages.map(|config| built(store.clone(), config).unwrap());
    let mut tokens = Vec::new();
    for manager in &managers {
        tokens.push(manager.set_token("al", None).await.unwrap());
    }
    for (reader, manager) in managers.iter().enumerate() {
        for (minter, token) in tokens.iter().enumerate() {
            let user = manager.check_token(token.expose_secret()).await.unwrap();
            let (by_old, knows_old, knows_new) = (minter < 2, reader < 3, reader > 0);
            let accepted = if by_old { knows_old } else { knows_new };
            assert_eq!(
                user.is_some(),
                accepted,
                "stage {reader}, token of stage {minter}"
            );
        }
    }
}

/// Whoever has the published keys accepts what is signed and not expired, and knows nothing of logouts.
#[tokio::test]
async fn a_verifier_needs_no_store() {
    for key in signing_keys().into_iter().skip(1) {
        let config = config(&key).issuer("login").audience("shop");
        let manager = built(MemoryStore::new(), config.clone()).unwrap();
        let published = JwtVerifier::from_jwk_set(&config.jwk_set()).unwrap();
        let published = published.issuer("login").audience("shop").build().unwrap();
        let by_hand = JwtVerifier::builder(verifying_keys())
            .issuer("login")
            .audience("shop");
        let by_hand = by_hand.leeway(Duration::ZERO).build().unwrap();
        let twin = config.verifier().unwrap();

        let options = TokenOptions::new().max_lifetime(Duration::from_secs(60));
        let issued = manager.set_token_with("al", options).await.unwrap();
        for verifier in [&published, &by_hand, &twin] {
            let verified = verifier.verify(issued.token.expose_secret()).unwrap();
            assert_eq!(verified.user_id(), "al");
            assert_eq!(verified.token_id(), issued.token.id());
            assert!(verified.issued_at().is_some());
            // To the second, and not before the store's own end.
            let late = verified
                .expires_at()
                .duration_since(issued.expires_at)
                .unwrap();
            assert!(late <= Duration::from_secs(2), "{late:?}");
        }
        manager.delete_user_tokens("al").await.unwrap();
        assert!(
            manager
                .check_token(issued.token.expose_secret())
                .await
                .unwrap()
                .is_none()
        );
        assert!(twin.verify(issued.token.expose_secret()).is_ok());
    }
}
