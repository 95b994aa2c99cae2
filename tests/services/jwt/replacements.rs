//! JSON Web Tokens that replace others.

use std::time::Duration;

use serde_json::json;
use tower_bearer_session::{
    ErrorKind, MemoryStore, ReplaceOptions, Replacement, Token, TokenManager, TokenOptions,
    jwt::{JwtConfig, JwtVerifier, SigningKey, VerifiedClaims},
};

use super::hs256;
use crate::stores::{DAY, HOUR};

fn config() -> JwtConfig {
    let key = SigningKey::hs256("k", &[7; 32]).unwrap();
    JwtConfig::new(key).issuer("login").audience("shop")
}

fn manager(store: &MemoryStore, config: JwtConfig) -> TokenManager {
    let builder = TokenManager::builder(store.clone()).jwt(config);
    builder.user_type().build().unwrap()
}

fn verify(verifier: &JwtVerifier, token: &Token) -> VerifiedClaims {
    verifier.verify(token.expose_secret()).unwrap()
}

async fn is_live(manager: &TokenManager, token: &Token) -> bool {
    let user = manager.check_token(token.expose_secret()).await;
    user.unwrap().is_some()
}

async fn replaced(manager: &TokenManager, token: &Token, options: ReplaceOptions) -> Token {
    let replacement = manager.replace_token(token.expose_secret(), options);
    match replacement.await.unwrap() {
        Replacement::Replaced { issued, .. } => issued.token,
        other => panic!("{other:?}"),
    }
}

/// It names the session, and expires with it.
#[tokio::test]
async fn the_new_token_is_a_jwt_of_the_same_session() {
    let (store, verifier) = (MemoryStore::new(), config().verifier().unwrap());
    let manager = manager(&store, config());
    let options = TokenOptions::new().ttl(HOUR).max_lifetime(DAY);
    let first = manager.set_token_with("al", options).await.unwrap().token;
    let mut tokens = vec![first];
    for _ in 0..3 {
        let current = &tokens[tokens.len() - 1];
        tokens.push(replaced(&manager, current, ReplaceOptions::new()).await);
    }
    let first = verify(&verifier, &tokens[0]);
    assert_eq!(first.other().get("sid"), None);
    for token in &tokens {
        let claims = verify(&verifier, token);
        assert_eq!(claims.token_id(), tokens[0].id());
        assert_eq!(
            (claims.user_id(), claims.audience()),
            ("al", &["shop".to_owned()][..])
        );
        // The clocks of service and store may be a moment apart.
        let apart = match claims.expires_at().duration_since(first.expires_at()) {
            Ok(apart) => apart,
            Err(error) => error.duration(),
        };
        assert!(apart <= Duration::from_secs(2), "{apart:?}");
        let user = manager.check_token(token.expose_secret()).await.unwrap();
        assert_eq!(user.unwrap().token_id(), Some(tokens[0].id()));
    }
    for token in &tokens[1..] {
        let claims = verify(&verifier, token);
        assert_eq!(claims.other()["sid"], tokens[0].id().to_string());
    }
    let jti = |token| verify(&verifier, token).jti().unwrap().to_owned();
    assert_ne!(jti(&tokens[1]), jti(&tokens[2]));
    // All of them end with the session.
    assert!(
        manager
            .delete_token(tokens[3].expose_secret())
            .await
            .unwrap()
    );
    for token in &tokens {
        assert!(!is_live(&manager, token).await);
    }
}

#[tokio::test]
async fn a_reused_jwt_ends_the_session() {
    let store = MemoryStore::new();
    let manager = manager(&store, config());
    let token = manager.set_token("al", HOUR).await.unwrap();
    let no_grace = ReplaceOptions::new().grace(Duration::ZERO);
    let new = replaced(&manager, &token, no_grace).await;
    assert!(is_live(&manager, &new).await);
    assert!(!is_live(&manager, &token).await);
    assert!(!is_live(&manager, &new).await);
}

/// A session from before the migration has no absolute end, without which a JWT cannot expire.
#[tokio::test]
async fn an_opaque_token_is_replaced_by_what_its_session_allows() {
    let store = MemoryStore::new();
    let opaque: TokenManager = TokenManager::new(store.clone());
    let manager = manager(&store, config().accept_opaque());
    let endless = opaque.set_token("al", HOUR).await.unwrap();
    let new = replaced(&manager, &endless, ReplaceOptions::new()).await;
    assert!(new.expose_secret().starts_with("tbs1."));
    let options = TokenOptions::new().ttl(HOUR).max_lifetime(DAY);
    let ending = opaque.set_token_with("al", options).await.unwrap().token;
    let jwt = replaced(&manager, &ending, ReplaceOptions::new()).await;
    assert!(jwt.expose_secret().starts_with("eyJ"));
    for (token, id) in [(&new, endless.id()), (&jwt, ending.id())] {
        let user = manager.check_token(token.expose_secret()).await.unwrap();
        assert_eq!(user.unwrap().token_id(), Some(id));
    }
}

/// Another issuer may use the claim for ids of its own: the session is then that of the token itself.
#[tokio::test]
async fn a_foreign_sid_names_no_session() {
    let store = MemoryStore::new();
    let manager = manager(&store, config());
    let foreign = [
        json!("3f2b8a52-1f5c-4c55-a6a6-1b8a5d6f2a11"),
        json!(""),
        json!(7),
        json!({}),
        json!(null),
    ];
    for sid in foreign {
        let claims = json!({
            "sub": "al", "iss": "login", "aud": "shop", "exp": 4_102_444_800_u64, "sid": sid,
        });
        let header = json!({ "alg": "HS256", "kid": "k" });
        let token = hs256(&header, &claims, &[7; 32]);
        let verified = config().verifier().unwrap().verify(&token).unwrap();
        assert!(manager.check_token(&token).await.unwrap().is_none());
        assert_eq!(verified.token_id().to_string().len(), 22, "{sid}");
    }
}

/// It has no key, and must not issue tokens of another format in place of JWTs.
#[tokio::test]
async fn a_manager_that_only_verifies_replaces_no_token() {
    let store = MemoryStore::new();
    let opaque: TokenManager = TokenManager::new(store.clone());
    let key = SigningKey::hs256("k", &[7; 32]).unwrap();
    let config = JwtConfig::verify_only([key.verifying_key().clone()])
        .issuer("login")
        .audience("shop");
    let verifying = manager(&store, config.accept_opaque());
    let endless = opaque.set_token("al", HOUR).await.unwrap();
    let options = TokenOptions::new().ttl(HOUR).max_lifetime(DAY);
    let ending = opaque.set_token_with("al", options).await.unwrap().token;
    for token in [endless, ending] {
        let replacing = verifying.replace_token(token.expose_secret(), ReplaceOptions::new());
        assert_eq!(replacing.await.unwrap_err().kind(), ErrorKind::Config);
        assert!(is_live(&verifying, &token).await);
    }
}

/// A user who can log in can also replace the token, although that makes it longer.
#[tokio::test]
async fn a_first_token_leaves_room_for_those_that_follow() {
    let store = MemoryStore::new();
    let lens: Vec<usize> = (2750..2950).collect();
    let mut outcomes = Vec::new();
    for len in lens {
        let manager = manager(&store, config().audience("a".repeat(len)));
        match manager.set_token("al", HOUR).await {
            Ok(token) => {
                let new = replaced(&manager, &token, ReplaceOptions::new()).await;
                assert!(is_live(&manager, &new).await);
                outcomes.push(true);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                outcomes.push(false);
            }
        }
    }
    assert!(
        outcomes.contains(&true) && outcomes.contains(&false),
        "{outcomes:?}"
    );
}
