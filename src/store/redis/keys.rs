use crate::{Error, store::config::config_error};

const MAX_PREFIX_LEN: usize = 64;

/// The names of a user's two keys.
///
/// The user id is the hash tag, so that both are in one slot of a cluster, whatever the id.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    token_prefix: String,
    user_prefix: String,
}

impl Keys {
    pub(super) fn new(token_prefix: String, user_prefix: String) -> Result<Self, Error> {
        check_prefix("token_key_prefix", &token_prefix)?;
        check_prefix("user_key_prefix", &user_prefix)?;
        if token_prefix == user_prefix {
            return Err(config_error(
                "token_key_prefix and user_key_prefix are the same; they must differ",
            ));
        }
        Ok(Self {
            token_prefix,
            user_prefix,
        })
    }

    /// The hash of the user's sessions.
    pub(super) fn sessions(&self, user_id: &str) -> String {
        key(&self.token_prefix, user_id)
    }

    /// The string of the user's cached value.
    pub(super) fn user(&self, user_id: &str) -> String {
        key(&self.user_prefix, user_id)
    }

    /// A key that no user has, for trying a connection: user ids are not empty.
    pub(super) fn probe(&self) -> String {
        self.user("")
    }

    /// A key that no user has and that `wanted` accepts: the keys of users end with a brace.
    pub(super) fn unused_key(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        // A cluster has 16,384 slots, and a node at least one of them.
        let keys = (0..1_000_000).map(|number| format!("{}:{{{number}}}:", self.user_prefix));
        keys.into_iter().find(|key| wanted(key))
    }
}

fn key(prefix: &str, user_id: &str) -> String {
    let mut key = String::with_capacity(prefix.len() + user_id.len() + 3);
    key.push_str(prefix);
    key.push_str(":{");
    // Braces would end the hash tag early, and the escape must not be ambiguous.
    let mut rest = user_id;
    while let Some(at) = rest.find(['{', '}', '%']) {
        key.push_str(&rest[..at]);
        key.push_str(match rest.as_bytes()[at] {
            b'{' => "%7B",
            b'}' => "%7D",
            _ => "%25",
        });
        rest = &rest[at + 1..];
    }
    key.push_str(rest);
    key.push('}');
    key
}

fn check_prefix(name: &str, prefix: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'{' && byte != b'}';
    if (1..=MAX_PREFIX_LEN).contains(&prefix.len()) && prefix.bytes().all(allowed) {
        return Ok(());
    }
    Err(config_error(format!(
        "{name} {prefix:?} is not 1 to {MAX_PREFIX_LEN} printable ASCII characters without spaces and braces"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_id_is_the_hash_tag_whatever_it_is() {
        let keys = Keys::new("t".into(), "u:v".into()).unwrap();
        assert_eq!(keys.sessions("alice"), "t:{alice}");
        assert_eq!(keys.user("a_b.c"), "u:v:{a_b.c}");
        assert_eq!(keys.sessions("}x{%"), "t:{%7Dx%7B%25}");
        assert_eq!(keys.user("漢字 🦀"), "u:v:{漢字 🦀}");
    }

    #[test]
    fn no_two_users_share_a_key() {
        let keys = Keys::new("t".into(), "u".into()).unwrap();
        assert_ne!(keys.user("{"), keys.user("%7B"));
        assert_ne!(keys.user("a}:{b"), keys.user("a%7D:%7Bb"));
    }

    #[test]
    fn prefixes_are_checked_and_never_rewritten() {
        for bad in ["", "a b", "a{b", "a}", "é", "a\n", &"x".repeat(65)] {
            assert!(Keys::new(bad.to_owned(), "u".into()).is_err(), "{bad:?}");
            assert!(Keys::new("t".into(), bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(Keys::new("same".into(), "same".into()).is_err());
    }
}
