use tower_bearer_session::{SessionStore, store::PutMode, test_util::Backend as _};

use crate::stores::{Backend, HOUR, MySql, is_live, listed, log_in, token_id};

/// What the collations of MySQL take for the same are different users.
#[tokio::test]
async fn users_are_told_apart_by_every_byte() {
    let tables = MySql::start().await;
    let store = tables.store().await;
    let users = [
        "al",
        "Al",
        "AL",
        "al ",
        "al  ",
        "ál",
        "a\u{301}l",
        "al\0",
        "0",
        "00",
        "ß",
        "ss",
    ];
    for (n, user) in (0..).zip(users) {
        log_in(&store, user, &token_id(n)).await;
        let put = store.put_user(user, user.as_bytes(), HOUR, PutMode::IfUnchanged(None));
        assert!(put.await.unwrap(), "{user:?}");
    }
    for (n, user) in (0..).zip(users) {
        assert_eq!(listed(&store, user).await, [token_id(n)], "{user:?}");
        let value = store.get_user(user).await.unwrap();
        assert_eq!(value.as_deref(), Some(user.as_bytes()));
        assert_eq!(store.delete_all(user, None).await.unwrap(), 1);
        for (other, user) in (0..).zip(users) {
            assert_eq!(is_live(&store, user, &token_id(other)).await, other > n);
        }
    }
}

/// Cached values are compared byte by byte, too.
#[tokio::test]
async fn values_are_told_apart_by_every_byte() {
    let tables = MySql::start().await;
    let store = tables.store().await;
    let values: [&[u8]; 6] = [b"", b" ", b"\0", b"a", b"A", b"a "];
    for value in values {
        let put = store.put_user("al", value, HOUR, PutMode::Replace);
        assert!(put.await.unwrap());
        for expected in values {
            let mode = PutMode::IfUnchanged(Some(expected));
            let put = store.put_user("al", value, HOUR, mode).await.unwrap();
            assert_eq!(put, expected == value, "{expected:?} for {value:?}");
        }
    }
}

/// An id that no token can have is an error, and never another user's.
#[tokio::test]
async fn an_id_that_is_too_long_is_not_cut() {
    let tables = MySql::start().await;
    let store = tables.store().await;
    let (fits, too_long) = ("x".repeat(255), "x".repeat(256));
    log_in(&store, &fits, &token_id(1)).await;
    let new = crate::stores::session(HOUR);
    let error = store.create(&too_long, &token_id(2), &new, None).await;
    let text = format!("{:?}", error.unwrap_err());
    assert!(text.contains("1406") && !text.contains("xxx"), "{text}");
    assert!(
        store
            .put_user(&too_long, b"value", HOUR, PutMode::Replace)
            .await
            .is_err()
    );
    assert_eq!(listed(&store, &fits).await, [token_id(1)]);
    assert_eq!(store.get_user(&fits).await.unwrap(), None);
}
