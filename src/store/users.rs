use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, token::MAX_USER_ID_LEN};

/// A page of the users who have sessions: the result of [`SessionStore::list_users`](super::SessionStore::list_users).
///
/// It serializes as an object with `users` and `next`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UserPage {
    /// The ids of users, in no particular order. A page may be empty even if more pages follow.
    pub users: Vec<String>,
    /// Where the next page begins; `None` on the last page.
    pub next: Option<UserCursor>,
}

/// A place in a listing of users, between two pages.
///
/// Its text means something only to the store that made it. It may contain a user id, but no secret. It serializes as
/// its text, and can be passed on to a client and to another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserCursor(Box<str>);

impl UserPage {
    /// Returns a page of these users; the next page begins at `next`.
    pub fn new(users: Vec<String>, next: Option<UserCursor>) -> Self {
        Self { users, next }
    }
}

impl UserCursor {
    /// Creates a cursor with this text, for a store or from a text that a client has sent.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text of the cursor.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The cursor of a store that lists users in the order of their ids: the next page begins after this one.
    pub(crate) fn after_user(user_id: &[u8]) -> Self {
        Self(BASE64URL.encode(user_id).into())
    }

    /// The user id of [`after_user`](Self::after_user).
    pub(crate) fn user_id(&self) -> Result<Vec<u8>, Error> {
        let user_id = BASE64URL.decode(self.as_str()).ok();
        let user_id = user_id.filter(|id| (1..=MAX_USER_ID_LEN).contains(&id.len()));
        user_id.ok_or_else(Self::invalid)
    }

    /// The error for a cursor that a store has not made.
    pub(crate) fn invalid() -> Error {
        let message = "the cursor is not one of this store";
        Error::new(ErrorKind::InvalidInput, message)
    }
}

impl fmt::Display for UserCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_its_user_and_is_safe_in_a_url() {
        for user_id in ["a", "%7B{}", "漢字 🦀", "a/b?c&d=é\n\0", &"x".repeat(255)] {
            let cursor = UserCursor::after_user(user_id.as_bytes());
            let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            assert!(cursor.as_str().bytes().all(is_safe), "{cursor}");
            let read = UserCursor::new(cursor.to_string());
            assert_eq!(read.user_id().unwrap(), user_id.as_bytes());
        }
    }

    #[test]
    fn a_cursor_that_no_store_has_made_is_invalid_input() {
        let too_long = BASE64URL.encode("x".repeat(256));
        for text in ["", "=", "a", "YQ==", "a b", "é", &too_long] {
            let error = UserCursor::new(text).user_id().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
    }

    #[test]
    fn a_page_is_json_with_the_text_of_its_cursor() {
        let next = UserCursor::new("c");
        let page = UserPage::new(vec!["al".to_owned()], Some(next.clone()));
        let json = serde_json::to_value(page).unwrap();
        assert_eq!(json, serde_json::json!({ "users": ["al"], "next": "c" }));
        let read: UserCursor = serde_json::from_value(json["next"].clone()).unwrap();
        assert_eq!(read, next);
    }
}
