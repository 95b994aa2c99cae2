//! Tokens with something changed.

use proptest::{collection::vec, prelude::*, sample::Index};
use tokio::runtime::Runtime;

use super::{config, counted, signing_keys};

#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Insert(Index, char),
    Remove(Index),
    Swap(Index, Index),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), 0..7_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<Index>(), "[A-Za-z0-9_.=-]").prop_map(|(at, text)| {
            Change::Insert(at, text.chars().next().expect("one character"))
        }),
        any::<Index>().prop_map(Change::Remove),
        any::<(Index, Index)>().prop_map(|(one, other)| Change::Swap(one, other)),
        any::<Index>().prop_map(Change::Cut),
    ]
}

/// The text with this change.
fn changed(mut text: Vec<char>, change: &Change) -> Vec<char> {
    if text.is_empty() {
        return text;
    }
    let len = text.len();
    match change {
        Change::Flip(at, bit) => {
            let at = &mut text[at.index(len)];
            *at = char::from(*at as u8 ^ (1 << bit));
        }
        Change::Insert(at, new) => text.insert(at.index(len + 1), *new),
        Change::Remove(at) => drop(text.remove(at.index(len))),
        Change::Swap(one, other) => text.swap(one.index(len), other.index(len)),
        Change::Cut(at) => text.truncate(at.index(len)),
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is changed in a live token, nobody accepts it, and the store is not asked.
    #[test]
    fn a_changed_token_is_never_accepted(key in 0..4_usize, changes in vec(change(), 1..4)) {
        let runtime = Runtime::new().unwrap();
        let config = config(&signing_keys()[key]);
        let verifier = config.verifier().unwrap();
        let (manager, faults) = counted(config);
        runtime.block_on(async {
            let options = tower_bearer_session::TokenOptions::new();
            let options = options.max_lifetime(std::time::Duration::from_secs(60));
            let token = manager.set_token_with("al", options).await.unwrap().token;
            let text = token.expose_secret();
            assert!(verifier.verify(text).is_ok());
            let bad = changes.iter().fold(text.chars().collect(), changed);
            let bad = String::from_iter(bad);
            prop_assume!(bad != text);
            let calls = faults.calls();
            prop_assert!(manager.check_token(&bad).await.unwrap().is_none());
            prop_assert!(verifier.verify(&bad).is_err());
            prop_assert_eq!(faults.calls(), calls);
            Ok(())
        })?;
    }
}
