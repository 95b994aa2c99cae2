use crate::{Error, store::config::config_error, token::check_user_id};

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

    /// The pattern of the hashes of all users, for `SCAN`; other keys may match it as well.
    pub(super) fn sessions_pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.token_prefix.len() + 4);
        for char in self.token_prefix.chars() {
            if ['*', '?', '[', ']', '\\'].contains(&char) {
                pattern.push('\\');
            }
            pattern.push(char);
        }
        pattern.push_str(":{*}");
        pattern
    }

    /// The user with this hash of sessions; `None` if it is the key of no user.
    pub(super) fn user_of(&self, key: &[u8]) -> Option<String> {
        user_of(&self.token_prefix, key)
    }

    /// The user whose key this is, that of the sessions or that of the cached value.
    pub(super) fn owner_of(&self, key: &[u8]) -> Option<String> {
        self.user_of(key)
            .or_else(|| user_of(&self.user_prefix, key))
    }

    /// What the keys of all users begin with, and hardly any others; neither begins with the other.
    pub(super) fn beginnings(&self) -> [String; 2] {
        [&self.token_prefix, &self.user_prefix].map(|prefix| format!("{prefix}:{{"))
    }

    /// The string of the user's cached value.
    pub(super) fn user(&self, user_id: &str) -> String {
        key(&self.user_prefix, user_id)
    }

    /// A key that no user has, for trying a connection: user ids are not empty.
    pub(super) fn probe(&self) -> String {
        self.user("")
    }

    /// The `n`th one of many keys that no user has: the keys of users end with a brace.
    pub(super) fn nth_probe(&self, n: u32) -> String {
        format!("{}:{{{n}}}:", self.user_prefix)
    }

    /// A key that no user has and that `wanted` accepts.
    pub(super) fn unused_key(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        // A cluster has 16,384 slots, and a node at least one of them.
        let keys = (0..1_000_000).map(|n| self.nth_probe(n));
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

fn user_of(prefix: &str, key: &[u8]) -> Option<String> {
    let tag = std::str::from_utf8(key).ok()?;
    let tag = tag.strip_prefix(prefix)?.strip_prefix(":{")?;
    let user_id = unescape(tag.strip_suffix('}')?)?;
    check_user_id(&user_id).ok().map(|()| user_id)
}

/// The user id in a hash tag; `None` if it is not the hash tag of a user id.
fn unescape(tag: &str) -> Option<String> {
    if tag.contains(['{', '}']) {
        return None;
    }
    let mut parts = tag.split('%');
    let mut user_id = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = part.split_at_checked(2)?;
        user_id.push(match escaped {
            "7B" => '{',
            "7D" => '}',
            "25" => '%',
            _ => return None,
        });
        user_id.push_str(rest);
    }
    Some(user_id)
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
    fn a_key_tells_its_user_and_no_other_key_does() {
        let keys = Keys::new("t:v*".into(), "u".into()).unwrap();
        let longest = "%".repeat(255);
        for user_id in [
            "alice",
            "}x{%",
            "%7B",
            "%%25",
            "漢字 🦀",
            "{",
            "}",
            "a:{b}",
            "\n\0",
            &longest,
        ] {
            let key = keys.sessions(user_id);
            assert_eq!(keys.user_of(key.as_bytes()).as_deref(), Some(user_id));
        }
        for key in [
            "t:v*:{}",
            "t:v*:{a",
            "t:v*:a}",
            "t:v*{a}",
            "u:{a}",
            "t:v:{a}",
            "t:v*:{a}}",
            "t:v*:{{a}",
            "t:v*:{a}b}",
            "t:v*:{%}",
            "t:v*:{%7}",
            "t:v*:{%7b}",
            "t:v*:{%41}",
            "t:v*:{%é}",
            "xt:v*:{a}",
            &keys.sessions(&"x".repeat(256)),
        ] {
            assert_eq!(keys.user_of(key.as_bytes()), None, "{key}");
        }
        assert_eq!(keys.user_of(b"t:v*:{\xFF}"), None);
    }

    #[test]
    fn either_key_tells_its_owner() {
        let keys = Keys::new("t".into(), "u:v".into()).unwrap();
        for user_id in ["alice", "}x{%", "漢字 🦀"] {
            for key in [keys.sessions(user_id), keys.user(user_id)] {
                assert_eq!(keys.owner_of(key.as_bytes()).as_deref(), Some(user_id));
                let mut beginnings = keys.beginnings().into_iter();
                assert!(beginnings.any(|beginning| key.starts_with(&beginning)));
            }
        }
        assert_eq!(keys.owner_of(keys.probe().as_bytes()), None);
        assert_eq!(keys.owner_of(b"v:{alice}"), None);
    }

    #[test]
    fn a_pattern_has_the_prefix_as_it_is() {
        let pattern = |prefix: &str| {
            Keys::new(prefix.into(), "u".into())
                .unwrap()
                .sessions_pattern()
        };
        assert_eq!(pattern("tbs:tokens"), "tbs:tokens:{*}");
        assert_eq!(pattern(r"a*?[b^-c]\d"), r"a\*\?\[b^-c\]\\d:{*}");
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
