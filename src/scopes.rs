use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::{Error, ErrorKind};

/// The scopes of a session: what its token may be used for (RFC 6749 §3.3).
///
/// A login sets them with [`TokenOptions::scopes`](crate::TokenOptions::scopes). They are case-sensitive, and their
/// order does not matter. The text form, and that in JSON, is the scopes with a space between two of them.
#[derive(Clone, Debug, Default)]
pub struct Scopes(Box<str>);

impl PartialEq for Scopes {
    fn eq(&self, other: &Self) -> bool {
        let set = |scopes: &Self| {
            scopes
                .iter()
                .map(ToOwned::to_owned)
                .collect::<BTreeSet<_>>()
        };
        set(self) == set(other)
    }
}

impl Eq for Scopes {}

impl FromStr for Scopes {
    type Err = Error;

    /// Parses the text form: scopes with a space between two of them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if one of them is not a scope.
    fn from_str(text: &str) -> Result<Self, Error> {
        let scopes: Vec<_> = text.split(' ').filter(|scope| !scope.is_empty()).collect();
        Self::new(&scopes)
    }
}

impl Scopes {
    /// Joins scopes.
    pub(crate) fn new<S: AsRef<str>>(scopes: &[S]) -> Result<Self, Error> {
        let mut text = String::new();
        for scope in scopes {
            let scope = scope.as_ref();
            if !is_scope(scope) {
                let message = "a scope is not one or more characters of visible ASCII other than quotes and backslashes";
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(scope);
        }
        Ok(Self(text.into()))
    }

    /// The scopes in their text form.
    pub(crate) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this scope is one of them.
    pub fn contains(&self, scope: &str) -> bool {
        self.iter().any(|one| one == scope)
    }

    /// The scopes, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|scope| !scope.is_empty())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Whether the text is a `scope-token` (RFC 6749 §3.3).
pub(crate) fn is_scope(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    !text.is_empty() && text.bytes().all(allowed)
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_told_apart_as_a_whole() {
        let scopes = Scopes::new(&["orders:write", "profile"]).unwrap();
        assert_eq!(scopes.to_string(), "orders:write profile");
        assert!(scopes.contains("profile") && scopes.contains("orders:write"));
        for other in ["orders", "Profile", "", "orders:write profile", " "] {
            assert!(!scopes.contains(other), "{other:?}");
        }
        assert!(Scopes::default().is_empty() && !scopes.is_empty());
        assert_eq!(
            "profile  orders:write profile".parse::<Scopes>().unwrap(),
            scopes
        );
        assert_ne!("profile".parse::<Scopes>().unwrap(), scopes);
    }

    #[test]
    fn what_cannot_be_a_scope_is_refused() {
        for bad in ["", "two words", "a\"b", "a\\b", "ümlaut", "tab\t", "\u{7F}"] {
            let error = Scopes::new(&["good", bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }
}
