//! Opaque tokens and token ids.
//!
//! - The first token of a session is accepted if and only if it is the canonical text of a user id and 32 bytes. A token
//!   that names another session is none of a session whose token has never been replaced.
//! - It stands for the user id that it contains, and for the public id that is its hash.
//! - All operations agree on which texts are tokens.
//! - No other text stands for the same session: any changed character is another token, or none.
//! - A minted token parses, whatever the user id, and `Debug` shows no part of its secret.
//! - A token id is accepted if and only if it is canonical; its error does not quote it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use tower_bearer_session::{ErrorKind, TokenId, TokenManager};
use tower_bearer_session_fuzz::{
    AlwaysLive, block_on, decode_base64url, jwt::base64url, shown, user_of_opaque,
};

static MANAGER: LazyLock<TokenManager> = LazyLock::new(|| TokenManager::new(AlwaysLive));

/// The user id and token id of a text that the manager accepts as a token.
fn check(text: &str) -> Option<(String, String)> {
    let user = block_on(MANAGER.check_token(text)).expect("no fault")?;
    Some((user.id().to_owned(), user.token_id()?.to_string()))
}

fuzz_target!(|text: &str| {
    let checked = check(text);
    let expected = user_of_opaque(text).map(|user| (user, base64url(&Sha256::digest(text)[..16])));
    assert_eq!(checked, expected);
    block_on(async {
        assert_eq!(
            MANAGER.delete_token(text).await.expect("no fault"),
            checked.is_some()
        );
        let refreshed = MANAGER.refresh_token(text, None).await.expect("no fault");
        assert_eq!(refreshed, checked.is_some());
    });
    if let Some(checked) = &checked {
        for (at, char) in text.char_indices() {
            for other in [char as u8 ^ 1, char as u8 ^ 0x20, b'A', b'='] {
                let (before, after) = (&text[..at], &text[at + 1..]);
                let neighbour = format!("{before}{}{after}", char::from(other & 0x7f));
                if neighbour != text {
                    assert_ne!(check(&neighbour).as_ref(), Some(checked), "{neighbour}");
                }
            }
            // What is left out or repeated.
            assert_ne!(
                check(&format!("{}{}", &text[..at], &text[at + 1..])).as_ref(),
                Some(checked)
            );
        }
    }
    mint(text);
    parse_id(text);
});

fn mint(user_id: &str) {
    let token = match block_on(MANAGER.set_token(user_id, None)) {
        Ok(token) => token,
        Err(error) => {
            assert!(!(1..=255).contains(&user_id.len()));
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            return;
        }
    };
    let text = token.expose_secret();
    assert!((1..=255).contains(&user_id.len()));
    assert_eq!(user_of_opaque(text).as_deref(), Some(user_id));
    assert_eq!(
        check(text),
        Some((user_id.to_owned(), token.id().to_string()))
    );
    let (_, secret) = text.rsplit_once('.').expect("three parts");
    let debug = format!("{token:?}");
    assert!(
        !secret
            .as_bytes()
            .windows(12)
            .any(|part| { debug.as_bytes().windows(12).any(|shown| shown == part) })
    );
}

fn parse_id(text: &str) {
    let is_canonical = decode_base64url(text).is_some_and(|bytes| bytes.len() == 16);
    match text.parse::<TokenId>() {
        Ok(id) => {
            assert!(is_canonical);
            assert_eq!(id.to_string(), text);
            let json = serde_json::to_string(&id).expect("JSON");
            assert_eq!(
                serde_json::from_str::<TokenId>(&json).expect("a token id"),
                id
            );
        }
        Err(error) => {
            assert!(!is_canonical);
            // Longer than any part of the fixed text.
            assert!(text.len() < 16 || !shown(&error).contains(text));
        }
    }
}
