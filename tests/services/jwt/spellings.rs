//! A token whose signature is spelled in another way is the same token.

use tower_bearer_session::{MemoryStore, TokenOptions};

use super::{built, config, respelled, signing_keys};

#[tokio::test]
async fn a_second_spelling_of_a_signature_is_the_same_token() {
    let config = config(&signing_keys()[1]);
    let verifier = config.verifier().unwrap();
    let manager = built(MemoryStore::new(), config).unwrap();
    let options = TokenOptions::new().max_lifetime(std::time::Duration::from_secs(60));
    let issued = manager.set_token_with("al", options).await.unwrap();
    let first = issued.token.expose_secret();
    let second = respelled(first);
    assert_ne!(first, second);
    assert_eq!(respelled(&second), first);

    let claims = [first, &second].map(|token| verifier.verify(token).unwrap());
    assert_eq!(claims[0].jti(), claims[1].jti());
    assert_eq!(claims[0].token_id(), issued.token.id());
    assert_eq!(claims[1].token_id(), issued.token.id());

    let user = manager.check_token(&second).await.unwrap().unwrap();
    assert_eq!(user.token_id(), Some(issued.token.id()));
    assert!(manager.delete_token(&second).await.unwrap());
    assert!(manager.check_token(first).await.unwrap().is_none());
}

/// Whatever is not the one base64url spelling of the octets (RFC 7515 §2) is refused.
#[tokio::test]
async fn a_signature_has_one_spelling_in_base64url() {
    for key in signing_keys() {
        let config = config(&key);
        let verifier = config.verifier().unwrap();
        let manager = built(MemoryStore::new(), config).unwrap();
        let options = TokenOptions::new().max_lifetime(std::time::Duration::from_secs(60));
        let token = manager.set_token_with("al", options).await.unwrap().token;
        let good = token.expose_secret();
        let (head, last) = good.split_at(good.len() - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=";
        for other in alphabet.chars().filter(|&other| !last.contains(other)) {
            assert!(
                verifier.verify(&format!("{head}{other}")).is_err(),
                "{other}"
            );
        }
        for odd in [
            format!("{good}="),
            format!("{good}=="),
            format!("{good}A"),
            format!("{good}\n"),
        ] {
            assert!(verifier.verify(&odd).is_err());
        }
        assert!(verifier.verify(good).is_ok());
    }
}
