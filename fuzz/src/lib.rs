//! What the fuzz targets share.

use std::{sync::LazyLock, time::Duration, time::SystemTime};

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tower_bearer_session::{
    Error, SessionStore, TokenId,
    store::{
        Checked, Created, MAX_TTL, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord,
        Updated, UserCursor, UserPage,
    },
};

pub mod jwt;

/// Opaque tokens of two users. Seeds contain them, so they are fixed.
pub const ALICE: &str = "tbs1.YWxpY2U.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
pub const BOB: &str = "tbs1.Ym9i.BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA";

/// Runs a future to its end on a runtime that all inputs share.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut runtime = Builder::new_current_thread();
        runtime.enable_time().build().expect("a runtime")
    });
    RUNTIME.block_on(future)
}

/// Decodes base64url without padding, and accepts the canonical encoding only.
///
/// It is written differently from the library that the crate uses, to be compared with it.
pub fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = Vec::new();
    for char in text.chars() {
        let value = alphabet.find(char)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1));
    }
    let octets = bits.chunks_exact(8);
    let rest = octets.remainder();
    if rest.len() >= 6 || rest.contains(&1) {
        return None;
    }
    let octet = |bits: &[usize]| bits.iter().fold(0, |octet, bit| octet << 1 | *bit as u8);
    Some(octets.map(octet).collect())
}

/// The user id in an opaque token; `None` if the text is not the canonical text of a token.
pub fn user_of_opaque(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('.').collect();
    let ["tbs1", user_id, secret] = parts[..] else {
        return None;
    };
    let user_id = String::from_utf8(decode_base64url(user_id)?).ok()?;
    let is_token = decode_base64url(secret)?.len() == 32 && (1..=255).contains(&user_id.len());
    is_token.then_some(user_id)
}

/// A store that finds every session: whether a manager accepts a token depends on the token alone.
pub struct AlwaysLive;

impl AlwaysLive {
    fn session() -> SessionRecord {
        SessionRecord::begin(&NewSession::new(MAX_TTL), SystemTime::now())
    }

    fn found() -> Result<Option<Checked>, Error> {
        Ok(Some(Checked::new(SystemTime::now(), Self::session(), None)))
    }
}

impl SessionStore for AlwaysLive {
    async fn create(
        &self,
        _: &str,
        _: &TokenId,
        _: &NewSession,
        _: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        Ok(Created::new(Self::session(), Vec::new()))
    }

    async fn check(&self, _: &str, _: &TokenId) -> Result<Option<Checked>, Error> {
        Self::found()
    }

    fn check_now(&self, _: &str, _: &TokenId) -> Option<Result<Option<Checked>, Error>> {
        Some(Self::found())
    }

    async fn update(
        &self,
        _: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        let mut session = Self::session();
        let applies = session.apply(token_id, change, SystemTime::now());
        Ok(applies.then(|| Updated::new(session.expires_at, 0)))
    }

    async fn delete(&self, _: &str, _: &TokenId) -> Result<bool, Error> {
        Ok(true)
    }

    async fn delete_all(&self, _: &str, _: Option<&TokenId>) -> Result<u64, Error> {
        Ok(0)
    }

    async fn list(&self, _: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        Ok(Vec::new())
    }

    async fn list_users(&self, _: Option<&UserCursor>) -> Result<UserPage, Error> {
        Ok(UserPage::default())
    }

    async fn get_user(&self, _: &str) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }

    async fn put_user(
        &self,
        _: &str,
        _: &[u8],
        _: Duration,
        _: PutMode<'_>,
    ) -> Result<bool, Error> {
        Ok(true)
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// The text of an error with all that it shows: `Display`, `Debug` and its sources.
pub fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    text
}
