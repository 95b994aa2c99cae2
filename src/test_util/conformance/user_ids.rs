//! Tests of user ids: any 1 to 255 bytes of UTF-8 work, and no two ids are mixed up.

use super::helpers::{
    DAY, HOUR, is_live, limit, listed, live, live_session, log_in, session, token_id,
};
use crate::{OnFull, SessionStore, store::PutMode, test_util::Backend};

/// Every method works for every user id.
pub async fn any_user_id_works(backend: &impl Backend) {
    let store = backend.store().await;
    for user_id in user_ids() {
        let user_id = user_id.as_str();
        let [first, second] = [1, 2].map(token_id);
        let created = log_in(&store, user_id, &first).await;
        assert_eq!(
            live_session(&store, user_id, &first).await,
            created,
            "{user_id:?}"
        );
        assert!(store.refresh(user_id, &first, DAY).await.expect("no error"));
        let max = limit(1, OnFull::EvictOldest);
        let created = store
            .create(user_id, &second, &session(HOUR), max)
            .await
            .expect("no error");
        assert_eq!(created.evicted[0].0, first, "{user_id:?}");
        assert_eq!(listed(&store, user_id).await, [second], "{user_id:?}");

        let value = user_id.as_bytes();
        assert!(
            store
                .put_user(user_id, value, HOUR, PutMode::IfUnchanged(None))
                .await
                .expect("no error")
        );
        let again = PutMode::IfUnchanged(Some(value));
        assert!(
            store
                .put_user(user_id, value, HOUR, again)
                .await
                .expect("no error")
        );
        assert_eq!(
            live(&store, user_id, &second).await.user.as_deref(),
            Some(value)
        );

        assert!(
            store.delete(user_id, &second).await.expect("no error"),
            "{user_id:?}"
        );
        log_in(&store, user_id, &first).await;
        assert_eq!(
            store
                .delete_all(user_id, Some(&first))
                .await
                .expect("no error"),
            0
        );
        assert_eq!(store.delete_all(user_id, None).await.expect("no error"), 1);
        assert!(!is_live(&store, user_id, &first).await);
    }
}

/// Ids that look alike, or would be equal after escaping, folding, trimming or truncation, are distinct.
pub async fn no_two_user_ids_are_one(backend: &impl Backend) {
    let store = backend.store().await;
    let all = user_ids();
    for (n, user_id) in (1..).zip(&all) {
        log_in(&store, user_id, &token_id(n)).await;
        // All users have a session with this token id.
        log_in(&store, user_id, &token_id(0)).await;
        let value = user_id.as_bytes();
        assert!(
            store
                .put_user(user_id, value, HOUR, PutMode::IfUnchanged(None))
                .await
                .expect("no error"),
            "{user_id:?}"
        );
    }
    for (n, user_id) in (1..).zip(&all) {
        let mut ids = listed(&store, user_id).await;
        ids.sort();
        assert_eq!(ids, [token_id(0), token_id(n)], "{user_id:?}");
        assert_eq!(
            store.get_user(user_id).await.expect("no error").as_deref(),
            Some(user_id.as_bytes()),
            "{user_id:?}"
        );
    }
    for (n, user_id) in all.iter().enumerate() {
        assert_eq!(
            store.delete_all(user_id, None).await.expect("no error"),
            2,
            "{user_id:?}"
        );
        for other in &all[n + 1..] {
            assert!(
                is_live(&store, other, &token_id(0)).await,
                "{user_id:?} {other:?}"
            );
        }
    }
}

pub(super) fn user_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "a",
        "A",
        "a ",
        " a",
        "a\n",
        "a\r\n",
        "\n",
        " ",
        "\t",
        "\0",
        "a\0",
        "a\0b",
        "0",
        "00",
        "-1",
        // Escapes, and the characters that they encode.
        "%",
        "%25",
        "%2525",
        "{",
        "%7B",
        "%7b",
        "}",
        "%7D",
        "{}",
        "}{",
        "{a}",
        "}a{",
        "{a",
        "a}",
        "}a",
        // The forms of keys, of indexes and of their patterns.
        "admin",
        "admin_eve",
        "admin:eve",
        "admin.eve",
        "tbs:tokens:{a}",
        "}:{a",
        ":",
        "*",
        "?",
        "[a]",
        "a*",
        "..",
        "../a",
        "/",
        "\\",
        "'",
        "\"",
        "`",
        "' OR 1=1 --",
        ";",
        "$1",
        "#",
        "&",
        "=",
        "@",
        // Other scripts; the same letter composed and decomposed; look-alikes; invisible ones.
        "漢字",
        "汉字",
        "ß",
        "ss",
        "SS",
        "é",
        "e\u{301}",
        "е",
        "e",
        "İ",
        "i",
        "ı",
        "I",
        "🦀",
        "👩‍👩‍👧",
        "👩",
        "a\u{200B}",
        "a\u{FEFF}",
        "\u{202E}a",
        "ａ",
        "ﬁ",
        "fi",
        "\u{10FFFF}",
        "\u{FFFD}",
    ]
    .map(str::to_owned)
    .into();
    ids.push("x".repeat(254));
    ids.push("x".repeat(255));
    ids.push("x".repeat(254) + "y");
    ids.push("{".repeat(255));
    ids.push("漢".repeat(85));
    ids.push("🦀".repeat(63));
    ids
}
