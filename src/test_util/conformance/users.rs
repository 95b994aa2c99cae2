//! Tests of listing the users who have sessions.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    helpers::{DAY, HOUR, SHORT, listed_users, log_in, outlive_short, session, token_id},
    user_ids::user_ids,
};
use crate::{
    SessionStore,
    store::{PutMode, UserCursor},
    test_util::Backend,
};

/// Without sessions, the first page is the last one, and empty.
pub async fn without_sessions_nobody_is_listed(backend: &impl Backend) {
    let store = backend.store().await;
    assert_eq!(listed_users(&store).await, BTreeSet::new());
}

/// Any user id is listed as it is, once for all sessions of the user.
pub async fn any_user_id_is_listed_as_it_is(backend: &impl Backend) {
    let store = backend.store().await;
    let users = user_ids();
    for user_id in &users {
        for n in 1..=3 {
            log_in(&store, user_id, &token_id(n)).await;
        }
    }
    assert_eq!(listed_users(&store).await, BTreeSet::from_iter(users));
}

/// All of thousands of users are listed, whatever the numbers of their sessions.
pub async fn thousands_of_users_are_all_listed(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..3000 {
        log_in(&store, &format!("user{n}"), &token_id(0)).await;
    }
    for n in 1..1500 {
        log_in(&store, "user1000", &token_id(n)).await;
    }
    let users = listed_users(&store).await;
    assert_eq!(users, (0..3000).map(|n| format!("user{n}")).collect());
}

/// A page has fewer than two thousand users.
pub async fn a_page_is_bounded(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..3000 {
        log_in(&store, &format!("user{n}"), &token_id(0)).await;
    }
    let (mut users, mut pages, mut after) = (0, 0, None);
    loop {
        let page = store.list_users(after.as_ref()).await.expect("no error");
        assert!(page.users.len() < 2000, "{} users", page.users.len());
        users += page.users.len();
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert!(users >= 3000 && pages > 1, "{users} users, {pages} pages");
}

/// A cursor is its text, and leads every handle to the same page.
pub async fn a_cursor_is_its_text(backend: &impl Backend) {
    let [first, second] = [backend.store().await, backend.store().await];
    for n in 0..3000 {
        log_in(&first, &format!("user{n}"), &token_id(0)).await;
    }
    let (mut users, mut after) = (BTreeSet::new(), None::<UserCursor>);
    for store in [&first, &second].into_iter().cycle() {
        let page = store.list_users(after.as_ref()).await.expect("no error");
        users.extend(page.users);
        match page.next {
            Some(next) => after = Some(UserCursor::new(next.to_string())),
            None => break,
        }
    }
    assert_eq!(users, (0..3000).map(|n| format!("user{n}")).collect());
}

/// A user is listed while one session is live, and no longer when the last one was deleted.
pub async fn who_logged_out_is_not_listed(backend: &impl Backend) {
    let store = backend.store().await;
    for user_id in ["al", "bo", "cy", "di"] {
        log_in(&store, user_id, &token_id(1)).await;
        log_in(&store, user_id, &token_id(2)).await;
    }
    store.delete("al", &token_id(1)).await.expect("no error");
    for n in [1, 2] {
        store.delete("bo", &token_id(n)).await.expect("no error");
    }
    store.delete_all("cy", None).await.expect("no error");
    store
        .delete_all("di", Some(&token_id(2)))
        .await
        .expect("no error");
    assert_eq!(listed_users(&store).await, users(["al", "di"]));
    log_in(&store, "bo", &token_id(3)).await;
    assert_eq!(listed_users(&store).await, users(["al", "bo", "di"]));
}

/// A cached user without a session is not listed.
pub async fn who_is_only_cached_is_not_listed(backend: &impl Backend) {
    let store = backend.store().await;
    for user_id in ["al", "bo", "cy"] {
        store
            .put_user(user_id, b"value", HOUR, PutMode::Replace)
            .await
            .expect("no error");
    }
    log_in(&store, "bo", &token_id(1)).await;
    log_in(&store, "cy", &token_id(1)).await;
    store.delete_all("cy", None).await.expect("no error");
    assert_eq!(listed_users(&store).await, users(["bo"]));
}

/// An expired session does not hide a live one of the same user.
pub async fn one_live_session_is_enough(backend: &impl Backend) {
    let store = backend.store().await;
    for n in 0..10 {
        let ttl = if n == 5 { HOUR } else { SHORT };
        store
            .create("al", &token_id(n), &session(ttl), None)
            .await
            .expect("no error");
    }
    store
        .create("bo", &token_id(1), &session(SHORT), None)
        .await
        .expect("no error");
    let refreshed = store.refresh("bo", &token_id(1), DAY).await;
    let refreshed = refreshed.expect("no error");
    outlive_short().await;
    let listed = listed_users(&store).await;
    assert!(listed.contains("al"));
    assert!(listed.contains("bo") || !refreshed);
}

/// A user who has a live session throughout is in every listing, whatever sessions start and end meanwhile.
pub async fn who_has_sessions_throughout_is_listed(backend: &impl Backend) {
    let store = backend.store().await;
    let stays: BTreeSet<_> = (0..1500).map(|n| format!("stays{n}")).collect();
    for user_id in &stays {
        log_in(&store, user_id, &token_id(0)).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let (churned, stop) = (backend.store().await, Arc::clone(&done));
    let staying: Vec<_> = stays.iter().cloned().collect();
    let churn = tokio::spawn(async move {
        // The tables in the store grow and shrink, so that they are rebuilt more than once. Those who stay have one
        // session after the other.
        let mut round = 0;
        while !stop.load(Ordering::SeqCst) {
            let (old, new) = (token_id(round), token_id(round + 1));
            for (n, user_id) in staying.iter().enumerate() {
                log_in(&churned, &format!("comes{n}"), &old).await;
                log_in(&churned, user_id, &new).await;
                let ended = match n % 2 {
                    0 => churned.delete(user_id, &old).await.map(u64::from),
                    _ => churned.delete_all(user_id, Some(&new)).await,
                };
                assert_eq!(ended.expect("no error"), 1);
            }
            for n in 0..staying.len() {
                let ended = churned.delete_all(&format!("comes{n}"), None).await;
                ended.expect("no error");
            }
            round += 1;
        }
        round
    });
    let mut listings = 0;
    while listings < 10 {
        let listed = listed_users(&store).await;
        let missing: Vec<_> = stays.difference(&listed).collect();
        assert!(missing.is_empty(), "{missing:?}");
        listings += 1;
    }
    done.store(true, Ordering::SeqCst);
    churn.await.expect("no error");
}

fn users<const N: usize>(user_ids: [&str; N]) -> BTreeSet<String> {
    user_ids.map(str::to_owned).into()
}
