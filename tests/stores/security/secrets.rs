//! CVE-2019-16782: whoever reads the store, or what is sent to it, learns no token.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use tower_bearer_session::{Token, TokenManager, TokenOptions};

use super::counting_manager;
use crate::stores::{DAY, HOUR, Server, on_every_server};

on_every_server!(
    no_token_is_in_any_key_field_or_value,
    no_token_is_in_any_command,
);

/// After all that can be done with tokens: neither their text, nor their secret part, nor its bytes.
async fn no_token_is_in_any_key_field_or_value(backend: &impl Server) {
    let (manager, _) = counting_manager(backend).await;
    let tokens = use_tokens(&manager).await;
    let dump = backend.server().dump_everything().await;
    // The scan finds what is there.
    for (present, token) in [("alice", &tokens[0]), ("laptop", &tokens[1])] {
        assert!(holds(&dump, present.as_bytes()), "{present}");
        assert!(holds(&dump, token.id().to_string().as_bytes()));
    }
    for token in &tokens {
        for secret in secrets_of(token) {
            assert!(!holds(&dump, &secret), "{token:?}");
        }
    }
}

/// The same for what the server logs of commands.
async fn no_token_is_in_any_command(backend: &impl Server) {
    let server = backend.server();
    server
        .cmd(&["CONFIG", "SET", "slowlog-max-len", "100000"])
        .await;
    server
        .cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "0"])
        .await;
    let (manager, _) = counting_manager(backend).await;
    let tokens = use_tokens(&manager).await;
    let log = format!("{:?}", server.cmd(&["SLOWLOG", "GET", "100000"]).await).into_bytes();
    let log = [log];
    for token in &tokens {
        assert!(
            holds(&log, token.id().to_string().as_bytes()),
            "it logs commands"
        );
        for secret in secrets_of(token) {
            assert!(!holds(&log, &secret), "{token:?}");
        }
    }
}

/// Does everything with tokens of alice; some are still live, and some are not.
async fn use_tokens(manager: &TokenManager<String>) -> Vec<Token> {
    let mut tokens = Vec::new();
    for device in ["phone", "laptop", "tablet", "stolen phone"] {
        let options = TokenOptions::new()
            .ttl(HOUR)
            .max_lifetime(DAY)
            .metadata("device", device);
        let issued = manager.set_token_with("alice", options).await.unwrap();
        let token = issued.token.expose_secret();
        assert!(manager.check_token(token).await.unwrap().is_some());
        let user = manager
            .check_token_or_update_user(token, HOUR)
            .await
            .unwrap();
        assert_eq!(user.unwrap().detail().unwrap(), "alice");
        assert!(manager.refresh_token(token, 2 * HOUR).await.unwrap());
        tokens.push(issued.token);
    }
    assert_eq!(manager.list_user_tokens("alice").await.unwrap().len(), 4);
    assert!(
        manager
            .delete_token(tokens[2].expose_secret())
            .await
            .unwrap()
    );
    assert!(
        manager
            .delete_user_token("alice", tokens[3].id())
            .await
            .unwrap()
    );
    assert!(
        !manager
            .refresh_token(tokens[3].expose_secret(), HOUR)
            .await
            .unwrap()
    );
    manager.add_user("alice", HOUR).await.unwrap();
    tokens
}

/// The forms in which a token could be somewhere.
fn secrets_of(token: &Token) -> [Vec<u8>; 3] {
    let text = token.expose_secret();
    let (_, secret) = text.rsplit_once('.').unwrap();
    let bytes = BASE64URL.decode(secret).unwrap();
    assert_eq!(bytes.len(), 32);
    [text.into(), secret.into(), bytes]
}

fn holds(texts: &[Vec<u8>], part: &[u8]) -> bool {
    let mut windows = texts.iter().flat_map(|text| text.windows(part.len()));
    windows.any(|window| window == part)
}
