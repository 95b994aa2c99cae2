//! Helpers of the conformance tests and of other tests of stores.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use tokio::{sync::Barrier, task::JoinSet};

use crate::{
    OnFull, SessionStore, TokenId,
    store::{Checked, NewSession, NewToken, SessionChange, SessionLimit, SessionRecord},
};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// A ttl that expires within the test.
///
/// Tests only assert the state *after* it has passed, never before: the machine may be busy.
pub const SHORT: Duration = Duration::from_millis(40);

/// The `n`th token id.
pub fn token_id(n: u128) -> TokenId {
    let text = BASE64URL.encode(n.to_be_bytes());
    text.parse().expect("16 bytes in base64url")
}

/// A session with this ttl and defaults otherwise.
pub fn session(ttl: Duration) -> NewSession {
    NewSession::new(ttl)
}

/// The replacement of the token `old` of a session by `new`, with a grace.
pub fn replacement(old: TokenId, new: TokenId, grace: Duration) -> SessionChange {
    SessionChange {
        new_token: Some(NewToken::new(new, grace)),
        if_token: Some(old),
        ..SessionChange::default()
    }
}

pub fn limit(max: u32, on_full: OnFull) -> Option<SessionLimit> {
    let max = NonZeroU32::new(max).expect("a limit of at least one");
    Some(SessionLimit::new(max, on_full))
}

/// Starts a session that lives for an hour, without a limit.
pub async fn log_in(store: &impl SessionStore, user_id: &str, token_id: &TokenId) -> SessionRecord {
    let created = store.create(user_id, token_id, &session(HOUR), None).await;
    created.expect("no error").session
}

/// Starts these sessions one after the other, no two in the same millisecond.
pub async fn log_in_apart(store: &impl SessionStore, user_id: &str, token_ids: &[TokenId]) {
    for token_id in token_ids {
        log_in(store, user_id, token_id).await;
        tick().await;
    }
}

/// The session of a live token.
pub async fn live_session(
    store: &impl SessionStore,
    user_id: &str,
    token_id: &TokenId,
) -> SessionRecord {
    Arc::unwrap_or_clone(live(store, user_id, token_id).await.session)
}

/// Checks a session, and panics if it is not live.
pub async fn live(store: &impl SessionStore, user_id: &str, token_id: &TokenId) -> Checked {
    let checked = store.check(user_id, token_id).await.expect("no error");
    checked.unwrap_or_else(|| panic!("{token_id} of {user_id:?} is not live"))
}

pub async fn is_live(store: &impl SessionStore, user_id: &str, token_id: &TokenId) -> bool {
    let checked = store.check(user_id, token_id).await;
    checked.expect("no error").is_some()
}

/// Lists the ids of the sessions of a user.
pub async fn listed(store: &impl SessionStore, user_id: &str) -> Vec<TokenId> {
    let sessions = store.list(user_id).await.expect("no error");
    sessions.into_iter().map(|(id, _)| id).collect()
}

/// Lists all users who have sessions, from all pages.
pub async fn listed_users(store: &impl SessionStore) -> BTreeSet<String> {
    let (mut users, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.list_users(after.as_ref()).await.expect("no error");
        users.extend(page.users);
        match page.next {
            Some(next) => after = Some(next),
            None => return users,
        }
    }
}

/// Waits until the store's clock has advanced by at least a millisecond.
pub async fn tick() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

/// Waits until sessions and values with the ttl [`SHORT`] have expired.
pub async fn outlive_short() {
    tokio::time::sleep(SHORT + Duration::from_millis(10)).await;
}

/// Runs this many tasks concurrently, started together, and returns their outputs.
pub async fn at_once<F>(tasks: usize, task: impl Fn(usize) -> F) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let start = Arc::new(Barrier::new(tasks));
    let mut running = JoinSet::new();
    for n in 0..tasks {
        let (start, work) = (Arc::clone(&start), task(n));
        running.spawn(async move {
            start.wait().await;
            work.await
        });
    }
    running.join_all().await
}
