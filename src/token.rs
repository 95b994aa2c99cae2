use std::{fmt, ops::Deref, str, str::FromStr, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind};

/// The maximum length of a token, in bytes.
const MAX_TOKEN_LEN: usize = 512;
/// The maximum length of a user id, in bytes of UTF-8.
pub(crate) const MAX_USER_ID_LEN: usize = 255;
const PREFIX: &str = "tbs1.";
const SECRET_LEN: usize = 32;
/// `SECRET_LEN` bytes in base64url without padding.
const SECRET_TEXT_LEN: usize = 43;

/// A newly issued bearer token: **the secret itself**.
///
/// Give it only to the client that logged in. It serializes as its text, because a login response needs it; it has no
/// `Display`, and its `Debug` shows only the public [`TokenId`]. The store never sees it.
///
/// The text is `tbs1.<base64url(user id)>.<base64url(32 random bytes)>`. A token that has
/// [replaced](crate::TokenManager::replace_token) another one also names its session:
/// `tbs1.<base64url(user id)>.<session>.<base64url(32 random bytes)>`. Both use only the characters that RFC 6750 §2.1
/// allows in a bearer token.
#[derive(Clone)]
pub struct Token {
    text: Box<str>,
    ids: TokenIds,
}

impl Token {
    /// The text of the token, to send to the client.
    pub fn expose_secret(&self) -> &str {
        &self.text
    }

    /// The public id of the session of this token.
    pub fn id(&self) -> &TokenId {
        &self.ids.session
    }

    pub(crate) fn ids(&self) -> TokenIds {
        self.ids
    }

    /// Generates a token for `user_id` with the operating system's random number generator: the first token of a new
    /// session, or another one of `session`.
    pub(crate) fn mint(user_id: &str, session: Option<&TokenId>) -> Result<Self, Error> {
        check_user_id(user_id)?;
        let mut secret = [0; SECRET_LEN];
        getrandom::fill(&mut secret).map_err(Error::random)?;
        let mut text = String::with_capacity(MAX_TOKEN_LEN);
        text.push_str(PREFIX);
        BASE64URL.encode_string(user_id, &mut text);
        if let Some(session) = session {
            text.push('.');
            text.push_str(&session.text());
        }
        text.push('.');
        BASE64URL.encode_string(secret, &mut text);
        let ids = TokenIds::new(TokenId::of(&text), session);
        Ok(Self::with_ids(text, ids))
    }

    pub(crate) fn with_ids(text: String, ids: TokenIds) -> Self {
        Self {
            ids,
            text: text.into_boxed_str(),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", self.id())
            .finish_non_exhaustive()
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// The public id of a token, and of the session that began with it.
///
/// It identifies the session in lists, logs and revocations, and grants no access. The session keeps it when its token
/// is [replaced](crate::TokenManager::replace_token).
///
/// It is the first 16 bytes of the SHA-256 hash of the token's text. Its text, by `Display`, `FromStr` and serde, is
/// their base64url (22 characters). For a JWT, the hash leaves out the signature and the dot before it. Stores use the
/// id as the key of the session, so reading the store reveals no token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 16]);

/// The text of a [`TokenId`], on the stack.
pub(crate) struct TokenIdText([u8; TokenId::LEN]);

impl TokenId {
    /// The length of the text form, in bytes.
    pub const LEN: usize = 22;

    /// The id with these 16 bytes, from [`to_bytes`](Self::to_bytes).
    pub const fn from_bytes(bytes: &[u8; 16]) -> Self {
        Self(*bytes)
    }

    /// The 16 bytes of the id, a shorter form for stores.
    pub const fn to_bytes(&self) -> [u8; 16] {
        self.0
    }

    /// The text form without an allocation.
    pub(crate) fn text(&self) -> TokenIdText {
        let mut text = [0; Self::LEN];
        BASE64URL
            .encode_slice(self.0, &mut text)
            .expect("16 bytes are 22 characters of base64url");
        TokenIdText(text)
    }

    /// The id of the token with this text; for a JWT, the text is the header and the claims without the signature.
    pub(crate) fn of(token: &str) -> Self {
        let hash = Sha256::digest(token);
        Self(*hash.first_chunk().expect("a hash of 32 bytes"))
    }
}

impl AsRef<[u8]> for TokenIdText {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for TokenIdText {
    type Target = str;

    fn deref(&self) -> &str {
        str::from_utf8(&self.0).expect("base64url is ASCII")
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

impl FromStr for TokenId {
    type Err = Error;

    /// Parses a token id, for example from a URL path.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the text is not a token id. The error does not quote the text, which might be a
    /// token.
    fn from_str(text: &str) -> Result<Self, Error> {
        // Decoding needs room for an estimate of the length.
        let mut bytes = [0; 18];
        match BASE64URL.decode_slice(text, &mut bytes) {
            Ok(16) => Ok(Self(*bytes.first_chunk().expect("16 of 18 bytes"))),
            _ => Err(Error::new(ErrorKind::InvalidInput, "not a token id")),
        }
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The ids of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenIds {
    /// The session, by the id of its first token.
    pub(crate) session: TokenId,
    /// The token itself.
    pub(crate) token: TokenId,
}

impl TokenIds {
    /// The ids of a token that names this session; without one, the session is that of the token.
    pub(crate) fn new(token: TokenId, session: Option<&TokenId>) -> Self {
        let session = *session.unwrap_or(&token);
        Self { session, token }
    }
}

/// The content of a well-formed token, parsed without a store call.
///
/// Deliberately without `Debug`: no log needs it.
#[derive(Clone)]
pub(crate) struct ParsedToken {
    pub(crate) user_id: Arc<str>,
    pub(crate) ids: TokenIds,
}

impl ParsedToken {
    /// Parses a token without a store call; `None` if [`Token::mint`] cannot have generated the text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TOKEN_LEN {
            return None;
        }
        let rest = text.strip_prefix(PREFIX)?;
        let (user_id, secret) =
            rest.split_at_checked(rest.len().checked_sub(SECRET_TEXT_LEN + 1)?)?;
        if !is_secret(secret.strip_prefix('.')?) {
            return None;
        }
        let (user_id, session) = match user_id.split_once('.') {
            Some((user_id, session)) => (user_id, Some(session.parse().ok()?)),
            None => (user_id, None),
        };
        let mut buffer = [0; MAX_USER_ID_LEN];
        // A user id that is too long does not fit into the buffer.
        let len = BASE64URL.decode_slice(user_id, &mut buffer).ok()?;
        let user_id = str::from_utf8(&buffer[..len]).ok()?;
        check_user_id(user_id).ok()?;
        Some(Self {
            user_id: user_id.into(),
            ids: TokenIds::new(TokenId::of(text), session.as_ref()),
        })
    }
}

/// Whether the text is the canonical base64url encoding of `SECRET_LEN` bytes.
fn is_secret(text: &str) -> bool {
    let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() | (byte == b'-') | (byte == b'_');
    // Not `all`: without an early exit the compiler can vectorize the loop.
    let all_are = text.bytes().fold(true, |all, byte| all & in_alphabet(byte));
    // The low two of the last character's six bits are padding, which must be zero.
    let ends_well = matches!(
        text.as_bytes().last(),
        Some(
            b'A' | b'E'
                | b'I'
                | b'M'
                | b'Q'
                | b'U'
                | b'Y'
                | b'c'
                | b'g'
                | b'k'
                | b'o'
                | b's'
                | b'w'
                | b'0'
                | b'4'
                | b'8'
        )
    );
    text.len() == SECRET_TEXT_LEN && all_are && ends_well
}

/// Checks the length of a user id: 1 to 255 bytes, with any characters.
pub(crate) fn check_user_id(id: &str) -> Result<(), Error> {
    match id.len() {
        0 => Err(Error::new(ErrorKind::InvalidInput, "the user id is empty")),
        1..=MAX_USER_ID_LEN => Ok(()),
        len => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("the user id has {len} bytes; at most {MAX_USER_ID_LEN} are allowed"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Parsing a token returns the user id that it was minted for.
        #[test]
        fn every_user_id_round_trips(id in "(?s).{1,63}", session: Option<[u8; 16]>) {
            let session = session.map(|bytes| TokenId::from_bytes(&bytes));
            let token = Token::mint(&id, session.as_ref()).unwrap();
            let parsed = ParsedToken::parse(token.expose_secret()).unwrap();
            prop_assert_eq!(&*parsed.user_id, id);
            prop_assert_eq!(parsed.ids, token.ids());
            prop_assert_eq!(parsed.ids.session, session.unwrap_or(parsed.ids.token));
            prop_assert!(token.expose_secret().len() <= MAX_TOKEN_LEN);
            // RFC 6750 §2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
            prop_assert!(token.expose_secret().bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b)));
        }

        /// Parsing never panics and accepts only the canonical text of a token.
        #[test]
        fn parsing_never_panics_and_is_canonical(text in "(tbs1\\.)?[A-Za-z0-9_=-]{0,12}(\\.[A-Za-z0-9_-]{21}[AQgw])?(\\.[A-Za-z0-9_-]{42,44})?|\\PC{0,80}") {
            if let Some(parsed) = ParsedToken::parse(&text) {
                let ids = parsed.ids;
                let session = if ids.session == ids.token { String::new() } else { format!(".{}", ids.session) };
                let secret = text.rsplit_once('.').unwrap().1;
                let spelled = format!("tbs1.{}{session}.{secret}", BASE64URL.encode(&*parsed.user_id));
                prop_assert_eq!(spelled, text);
            }
        }
    }

    #[test]
    fn the_longest_id_fits_and_one_byte_more_is_refused() {
        let id = "x".repeat(255);
        let session = TokenId::from_bytes(&[9; 16]);
        for session in [None, Some(&session)] {
            let token = Token::mint(&id, session).unwrap();
            let parsed = ParsedToken::parse(token.expose_secret()).unwrap();
            assert_eq!(*parsed.user_id, *id);
        }
        for bad in [String::new(), "x".repeat(256)] {
            assert_eq!(
                Token::mint(&bad, None).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        }
    }

    #[test]
    fn near_misses_are_not_tokens() {
        let good = "tbs1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(ParsedToken::parse(good).is_some());
        let named =
            "tbs1.YWxpY2U.4kwus3f3oUnjsz4F7CAgaQ.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let parsed = ParsedToken::parse(named).unwrap();
        assert_eq!(parsed.ids.session.to_string(), "4kwus3f3oUnjsz4F7CAgaQ");
        assert_eq!(parsed.ids.token, TokenId::of(named));
        for bad in [
            "",
            "tbs1.",
            "tbs1..",
            "tbs2.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "TBS1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            // An empty user id, a user id that is not UTF-8, padding, a stray bit after the last byte.
            "tbs1..AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1._w.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.YWxpY2U=.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.YWxpY2V.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",
            // One character short, one too many, a third part, the other base64 alphabet, spaces.
            "tbs1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.x",
            "tbs1.YWxpY2U.+AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            // An empty session, one that is too short, with stray bits, in front of the user, two of them.
            "tbs1.YWxpY2U..AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.YWxpY2U.4kwus3f3oUnjsz4F7CAga.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.YWxpY2U.4kwus3f3oUnjsz4F7CAgaR.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.4kwus3f3oUnjsz4F7CAgaQ.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.YWxpY2U.4kwus3f3oUnjsz4F7CAgaQ.4kwus3f3oUnjsz4F7CAgaQ.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            " tbs1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "tbs1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
        ] {
            assert!(ParsedToken::parse(bad).is_none(), "{bad:?}");
        }
        let long = format!("tbs1.{}.{}", "A".repeat(600), "A".repeat(43));
        assert!(ParsedToken::parse(&long).is_none());
    }

    /// For each last character, and each character in the middle.
    #[test]
    fn a_secret_is_what_base64_decodes() {
        for byte in 0..=127_u8 {
            let char = char::from(byte);
            for text in [
                format!("{}{char}", "A".repeat(42)),
                format!("{}{char}{}", "_".repeat(20), "w".repeat(22)),
                format!("{char}{}", "A".repeat(43)),
                format!("{}{char}", "A".repeat(41)),
            ] {
                let decoded = BASE64URL.decode(&text);
                let is_one = decoded.is_ok_and(|bytes| bytes.len() == SECRET_LEN);
                assert_eq!(is_secret(&text), is_one, "{text:?}");
            }
        }
    }

    /// The handle is fixed for ever: other services and languages compute it too.
    #[test]
    fn the_token_id_is_the_first_half_of_sha_256() {
        let id = TokenId::of("tbs1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(id.to_string(), "4kwus3f3oUnjsz4F7CAgaQ");
        assert_eq!(id.to_string().parse::<TokenId>().unwrap(), id);
        for bad in [
            "",
            "short",
            "4kwus3f3oUnjsz4F7CAgaQx",
            "aaaaaaaaaaaaaaaaaaaaaa",
            "ééééééééééé",
        ] {
            assert!(bad.parse::<TokenId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_no_secret_and_serialize_shows_the_token() {
        let token = Token::mint("alice", None).unwrap();
        let debug = format!("{token:?}");
        assert!(debug.contains(&token.id().to_string()));
        assert!(!debug.contains(&token.expose_secret()[PREFIX.len()..]));
        assert_eq!(serde_json::to_value(&token).unwrap(), token.expose_secret());
    }
}
