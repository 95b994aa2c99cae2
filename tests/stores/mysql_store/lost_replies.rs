//! Writes that were done although their replies got lost.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use tower_bearer_session::{Error, MySqlStore, SessionStore, TokenId, store::SessionChange};

use super::eventually;
use crate::{
    harness::{MariaDb, Proxy},
    stores::{HOUR, is_live, live_session, log_in, replacement, session, tick, token_id},
};

/// A store that gives up late.
async fn patient(port: u16) -> MySqlStore {
    let url = format!("mysql://app:hunter2@127.0.0.1:{port}/sessions");
    let builder = MySqlStore::builder(url).deadline(Duration::from_secs(30));
    let builder = builder.connect_timeout(Duration::from_secs(30));
    builder.connect().await.unwrap()
}

/// A server, a proxy in front of it, and a store through each.
async fn stores() -> (MariaDb, Proxy, MySqlStore, MySqlStore) {
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let (store, direct) = (patient(proxy.port()).await, patient(mysql.port()).await);
    direct.migrate().await.unwrap();
    (mysql, proxy, store, direct)
}

/// Lets the server do a write and then loses the reply; returns what the caller is told.
async fn losing_the_reply<T>(
    proxy: &Proxy,
    write: impl Future<Output = T>,
    is_done: impl AsyncFnMut() -> bool,
) -> T {
    proxy.set_delay(Duration::from_millis(300));
    let (answer, ()) = tokio::join!(write, async {
        eventually("it is done", is_done).await;
        proxy.set_delay(Duration::ZERO);
        proxy.drop_connections().await;
    });
    answer
}

/// The same for a write that ends a session of "al".
async fn without_its_reply<T>(
    write: impl AsyncFn(&MySqlStore) -> Result<T, Error>,
) -> Result<T, Error> {
    let (_mysql, proxy, store, direct) = stores().await;
    // Prepares the statements.
    write(&store).await?;
    for n in 1..4 {
        log_in(&direct, "al", &token_id(n)).await;
    }
    let is_done = async || !is_live(&direct, "al", &token_id(1)).await;
    losing_the_reply(&proxy, write(&store), is_done).await
}

/// A session of "al", and its renewal if it has not changed; the statement is prepared.
async fn session_to_renew(
    store: &MySqlStore,
    max_lifetime: Option<Duration>,
) -> (TokenId, SessionChange) {
    let id = token_id(7);
    let mut new = session(HOUR / 2);
    new.max_lifetime = max_lifetime;
    store.create("al", &id, &new, None).await.unwrap();
    tick().await;
    let version = live_session(store, "al", &id).await.version();
    let mut change = SessionChange::refresh(2 * HOUR);
    change.if_version = Some(version);
    assert!(
        store
            .update("al", &token_id(8), &change)
            .await
            .unwrap()
            .is_none()
    );
    (id, change)
}

/// The caller is told of a logout, because the store cannot tell that there was none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_whose_reply_was_lost_counts_as_one() {
    let logout = async |store: &MySqlStore| store.delete("al", &token_id(1)).await;
    assert!(without_its_reply(logout).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_of_all_sessions_whose_reply_was_lost_keeps_its_count() {
    let logout = async |store: &MySqlStore| store.delete_all("al", None).await;
    assert_eq!(without_its_reply(logout).await.unwrap(), 3);
}

/// A renewal that depends on the version of the session finds, when it is repeated, the version that it has made
/// itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conditional_renewal_whose_reply_was_lost_is_done() {
    for max_lifetime in [None, Some(HOUR)] {
        let (_mysql, proxy, store, direct) = stores().await;
        let (id, change) = session_to_renew(&store, max_lifetime).await;
        let is_done =
            async || Some(live_session(&direct, "al", &id).await.version()) != change.if_version;
        let renewal = losing_the_reply(&proxy, store.update("al", &id, &change), is_done);
        assert!(renewal.await.unwrap().is_some(), "{max_lifetime:?}");
    }
}

/// A replacement whose reply is lost finds its new token, when it is repeated: the caller gets the token, and the
/// session has been given no other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_whose_reply_was_lost_is_done() {
    for ends_others in [false, true] {
        let (_mysql, proxy, store, direct) = stores().await;
        let [id, other, new] = [7, 8, 9].map(token_id);
        for id in [id, other] {
            store.create("al", &id, &session(HOUR), None).await.unwrap();
        }
        let mut change = replacement(id, new, HOUR);
        change.end_others = ends_others;
        // The statement is prepared.
        assert_eq!(store.update("bo", &id, &change).await.unwrap(), None);
        let is_done = async || live_session(&direct, "al", &id).await.rotation.is_some();
        let replacing = losing_the_reply(&proxy, store.update("al", &id, &change), is_done);
        let updated = replacing.await.unwrap().expect("the token is replaced");
        let session = live_session(&direct, "al", &id).await;
        assert_eq!(updated.expires_at, session.expires_at);
        let rotation = session.rotation.unwrap();
        assert_eq!((rotation.current, rotation.replaced.len()), (new, 1));
        // As with a logout of all others, at least one was ended.
        assert_eq!(updated.ended, u64::from(ends_others));
        let left = direct.list("al").await.unwrap().len();
        assert_eq!(left, if ends_others { 1 } else { 2 });
    }
}

/// But what somebody else has made of the session is no renewal of this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conditional_renewal_that_came_too_late_is_not_done() {
    let logout = async |store: &MySqlStore, id: &TokenId| store.delete("al", id).await.unwrap();
    assert!(!renewal_after(logout).await);
    let refresh =
        async |store: &MySqlStore, id: &TokenId| store.refresh("al", id, 3 * HOUR).await.unwrap();
    assert!(!renewal_after(refresh).await);
}

/// Unless it is the very same: then the session is what the caller wanted, and nothing tells who did it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_renewal_is_done_if_another_caller_did_the_same() {
    let refresh =
        async |store: &MySqlStore, id: &TokenId| store.refresh("al", id, 2 * HOUR).await.unwrap();
    assert!(renewal_after(refresh).await);
}

/// What a conditional renewal reports whose first attempt is lost on its way, after another caller's write.
async fn renewal_after(write: impl AsyncFn(&MySqlStore, &TokenId) -> bool) -> bool {
    /// How many rounds may take too long on a busy machine.
    const ROUNDS: u32 = 20;
    for _ in 0..ROUNDS {
        let (_mysql, proxy, store, direct) = stores().await;
        let (id, change) = session_to_renew(&store, None).await;
        assert!(write(&direct, &id).await);
        // The first attempt reaches nobody.
        proxy.black_hole_existing();
        let renewal = tokio::spawn(async move { store.update("al", &id, &change).await });
        let sent = BASE64URL.decode(id.to_string()).unwrap();
        let is_sent = || {
            let swallowed = proxy.swallowed();
            swallowed.windows(sent.len()).any(|bytes| bytes == sent)
        };
        eventually("the first attempt", async || {
            is_sent() || renewal.is_finished()
        })
        .await;
        let is_lost = is_sent();
        proxy.drop_connections().await;
        let is_done = renewal.await.unwrap().unwrap();
        // A connection that had to be renewed by its age is not one of those that lose their bytes.
        if is_lost {
            return is_done.is_some();
        }
    }
    panic!("each of {ROUNDS} rounds took too long");
}

/// Without a lost reply, a conditional renewal fails if another one has changed the session before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_equal_renewals_one_is_done() {
    let (_mysql, _proxy, store, _) = stores().await;
    let (id, change) = session_to_renew(&store, None).await;
    assert!(store.update("al", &id, &change).await.unwrap().is_some());
    assert!(store.update("al", &id, &change).await.unwrap().is_none());
}
