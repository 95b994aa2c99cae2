//! Scopes of sessions.

use tower_bearer_session::{ErrorKind, MemoryStore, TokenManager, TokenOptions};

use super::session_of;

#[tokio::test]
async fn a_session_has_the_scopes_of_its_login() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let options = TokenOptions::new().scopes(["orders:write", "profile"]);
    let token = manager.set_token_with("al", options).await.unwrap().token;
    let session = session_of(&manager, &token).await.unwrap();
    let scopes = session.scopes();
    assert!(scopes.contains("orders:write") && scopes.contains("profile"));
    assert!(!scopes.contains("orders"));
    assert_eq!(session.metadata().len(), 0);
    let listed = manager.list_user_tokens("al").await.unwrap();
    let json = serde_json::to_value(&listed[0]).unwrap();
    assert_eq!(json["scope"], "orders:write profile");
    assert_eq!(json["metadata"], serde_json::json!({}));
}

/// Nobody can get scopes by way of the metadata, which may come from a client.
#[tokio::test]
async fn scopes_are_not_set_by_metadata() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    for options in [
        TokenOptions::new().metadata("scope", "admin"),
        TokenOptions::new()
            .metadata("scope", ["admin"].as_slice())
            .scopes(["read"]),
        TokenOptions::new().scopes(["read admin"]),
        TokenOptions::new().scopes([""]),
        TokenOptions::new().scopes(["x".repeat(1024)]),
    ] {
        let refused = manager.set_token_with("al", options).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(manager.list_user_tokens("al").await.unwrap(), []);
}
