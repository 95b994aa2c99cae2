//! A custom store, and the tests that it keeps the contract of `SessionStore`.
//!
//! Run `cargo run --example custom_store --features test-util`; `cargo test` with the same arguments runs the tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tower_bearer_session::{
    Error, ErrorKind, OnFull, SessionStore, TokenId, TokenManager,
    store::{
        Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord, Updated,
        UserCursor, UserPage,
    },
};

/// The number of users in a page of a list.
const USERS_PER_PAGE: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let manager: TokenManager = TokenManager::new(TableStore::default());
    let laptop = manager.set_token("alice", None).await?;
    let phone = manager.set_token("alice", None).await?;
    let user = manager.check_token(laptop.expose_secret()).await?;
    println!(
        "the laptop's token belongs to {:?}",
        user.map(|user| user.id().to_owned())
    );

    manager
        .delete_other_user_tokens("alice", laptop.id())
        .await?;
    let user = manager.check_token(phone.expose_secret()).await?;
    println!("the phone is logged in: {}", user.is_some());
    println!(
        "sessions of alice: {}",
        manager.list_user_tokens("alice").await?.len()
    );
    Ok(())
}

/// Two tables under one lock, which makes every method atomic.
///
/// Every call searches both tables for expired rows; a store with many sessions needs an index for that.
#[derive(Clone, Default)]
struct TableStore(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    now: Option<SystemTime>,
    sessions: BTreeMap<(String, TokenId), SessionRecord>,
    users: BTreeMap<String, (Bytes, SystemTime)>,
}

impl TableStore {
    /// Removes expired rows, and returns the tables and the current time.
    fn begin(&self) -> (MutexGuard<'_, Tables>, SystemTime) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The system clock may be set back; the clock of a store must not go back.
        let now = SystemTime::now();
        let now = tables.now.map_or(now, |before| now.max(before));
        tables.now = Some(now);
        tables
            .sessions
            .retain(|_, session| now < session.expires_at);
        tables.users.retain(|_, (_, expires_at)| now < *expires_at);
        (tables, now)
    }
}

impl Tables {
    fn list(&self, user_id: &str) -> Vec<(TokenId, SessionRecord)> {
        let of_user = self
            .sessions
            .iter()
            .filter(|((user, _), _)| user == user_id);
        of_user
            .map(|((_, id), session)| (*id, session.clone()))
            .collect()
    }

    /// Evicts as many sessions as the limit demands before a new one begins.
    fn make_room(
        &mut self,
        user_id: &str,
        limit: SessionLimit,
    ) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let mut sessions = self.list(user_id);
        let excess = (sessions.len() + 1).saturating_sub(limit.max.get() as usize);
        match limit.on_full {
            OnFull::Reject if excess > 0 => {
                return Err(Error::new(ErrorKind::SessionLimit, "too many sessions"));
            }
            OnFull::Reject | OnFull::EvictOldest => {
                sessions.sort_by_key(|(_, session)| session.created_at);
            }
            OnFull::EvictLeastRecentlyRefreshed => {
                sessions.sort_by_key(|(_, session)| session.refreshed_at);
            }
        }
        sessions.truncate(excess);
        for (id, _) in &sessions {
            self.sessions.remove(&key(user_id, id));
        }
        Ok(sessions)
    }

    fn end_all(&mut self, user_id: &str, except: Option<&TokenId>) -> u64 {
        let before = self.sessions.len();
        self.sessions
            .retain(|(user, id), _| user != user_id || except == Some(id));
        (before - self.sessions.len()) as u64
    }
}

fn key(user_id: &str, token_id: &TokenId) -> (String, TokenId) {
    (user_id.to_owned(), *token_id)
}

impl SessionStore for TableStore {
    async fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        let (mut tables, now) = self.begin();
        let key = key(user_id, token_id);
        if let Some(session) = tables.sessions.get(&key) {
            return Ok(Created::new(session.clone(), Vec::new()));
        }
        let evicted = match limit {
            Some(limit) => tables.make_room(user_id, limit)?,
            None => Vec::new(),
        };
        let session = SessionRecord::begin(new, now);
        tables.sessions.insert(key, session.clone());
        Ok(Created::new(session, evicted))
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        let (tables, now) = self.begin();
        let session = tables.sessions.get(&key(user_id, token_id));
        let user = tables.users.get(user_id).map(|(value, _)| value.clone());
        Ok(session.map(|session| Checked::new(now, session.clone(), user)))
    }

    async fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        let (mut tables, now) = self.begin();
        let Some(session) = tables.sessions.get_mut(&key(user_id, token_id)) else {
            return Ok(None);
        };
        if !session.apply(token_id, change, now) {
            return Ok(None);
        }
        let expires_at = session.expires_at;
        let ended = match change.end_others {
            true => tables.end_all(user_id, Some(token_id)),
            false => 0,
        };
        Ok(Some(Updated::new(expires_at, ended)))
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        let (mut tables, _) = self.begin();
        Ok(tables.sessions.remove(&key(user_id, token_id)).is_some())
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        let (mut tables, _) = self.begin();
        Ok(tables.end_all(user_id, except))
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let (tables, _) = self.begin();
        let mut sessions = tables.list(user_id);
        sessions.sort_by_key(|(_, session)| session.created_at);
        Ok(sessions)
    }

    async fn list_users(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        let (tables, _) = self.begin();
        let after = after.map_or("", UserCursor::as_str);
        let users = tables.sessions.keys().map(|(user_id, _)| user_id);
        let users: BTreeSet<_> = users.filter(|user_id| user_id.as_str() > after).collect();
        let page: Vec<_> = users.into_iter().take(USERS_PER_PAGE).cloned().collect();
        // The last page is the first one that is not full.
        let next = page.get(USERS_PER_PAGE - 1).cloned().map(UserCursor::new);
        Ok(UserPage::new(page, next))
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        let (tables, _) = self.begin();
        Ok(tables.users.get(user_id).map(|(value, _)| value.clone()))
    }

    async fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        let (mut tables, now) = self.begin();
        let cached = tables.users.get(user_id).map(|(value, _)| &**value);
        if matches!(mode, PutMode::IfUnchanged(seen) if seen != cached) {
            return Ok(false);
        }
        let value = Bytes::copy_from_slice(value);
        tables.users.insert(user_id.to_owned(), (value, now + ttl));
        Ok(true)
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod conformance {
    use super::TableStore;

    tower_bearer_session::store_conformance_tests!(async || TableStore::default());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_runs() {
        super::main().expect("no error");
    }
}
