//! Tests of concurrent calls over two handles.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    sync::Barrier,
    task::{JoinSet, yield_now},
    time::timeout,
};

use super::helpers::{
    DAY, HOUR, at_once, is_live, limit, listed, live_session, log_in, replacement, session, tick,
    token_id,
};
use crate::{
    ErrorKind, OnFull, SessionStore,
    store::{NewToken, PutMode, SessionChange},
    test_util::Backend,
};

/// Exactly one of 16 concurrent deletes ends the session.
pub async fn one_of_many_deletes_ends_the_session(backend: &impl Backend) {
    let stores = two_handles(backend).await;
    for round in 0..100 {
        let id = token_id(round);
        log_in(&*stores[0], "al", &id).await;
        let ended = at_once(16, |task| {
            let store = Arc::clone(&stores[task % 2]);
            async move { store.delete("al", &id).await.expect("no error") }
        });
        let ended = ended.await.into_iter().filter(|ended| *ended).count();
        assert_eq!(ended, 1, "number of deletes that ended the session");
    }
}

/// With concurrent logins, logouts and logouts of all, the reported counts add up.
pub async fn every_session_is_ended_once(backend: &impl Backend) {
    const LOGINS: u128 = 40;
    let stores = two_handles(backend).await;
    for round in 0..10 {
        let user_id: Arc<str> = format!("user {round}").into();
        let ended = at_once(12, |task| {
            let (store, user_id) = (Arc::clone(&stores[task % 2]), Arc::clone(&user_id));
            async move {
                let mut ended = 0;
                for n in 0..LOGINS {
                    let id = token_id(n + 1000 * task as u128);
                    log_in(&*store, &user_id, &id).await;
                    let more = match n % 4 {
                        1 => store.delete(&user_id, &id).await.map(u64::from),
                        2 => store.delete_all(&user_id, Some(&id)).await,
                        3 => store.delete_all(&user_id, None).await,
                        _ => Ok(0),
                    };
                    ended += more.expect("no error");
                }
                ended
            }
        });
        let ended: u64 = ended.await.into_iter().sum();
        let live = listed(&*stores[0], &user_id).await.len() as u64;
        assert_eq!(ended + live, 12 * LOGINS as u64, "{live} are live");
    }
}

/// Of concurrent puts with the same condition exactly one writes, and the others return `false`.
pub async fn one_of_many_conditional_puts_wins(backend: &impl Backend) {
    let stores = two_handles(backend).await;
    let mut seen: Option<Vec<u8>> = None;
    for round in 0..100_u8 {
        let written = at_once(16, |task| {
            let (store, seen) = (Arc::clone(&stores[task % 2]), seen.clone());
            async move {
                let (value, mode) = (
                    vec![round, task as u8],
                    PutMode::IfUnchanged(seen.as_deref()),
                );
                let written = store.put_user("al", &value, HOUR, mode).await;
                written.expect("no error").then_some(value)
            }
        });
        let winners: Vec<_> = written.await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "number of puts that wrote");
        seen = winners.into_iter().next();
        let cached = stores[0].get_user("al").await.expect("no error");
        assert_eq!(cached.as_deref(), seen.as_deref());
    }
}

/// Of 40 concurrent logins with a limit of 3, exactly 3 are live, and each other one is evicted once or refused.
pub async fn the_limit_holds_when_logins_come_at_once(backend: &impl Backend) {
    const LOGINS: usize = 40;
    let stores = two_handles(backend).await;
    let policies = [
        OnFull::EvictOldest,
        OnFull::EvictLeastRecentlyRefreshed,
        OnFull::Reject,
    ];
    for (round, on_full) in (0..12).zip(policies.into_iter().cycle()) {
        let user_id: Arc<str> = format!("user {round}").into();
        let outcomes = at_once(LOGINS, |task| {
            let (store, user_id) = (Arc::clone(&stores[task % 2]), Arc::clone(&user_id));
            async move {
                let (id, max) = (token_id(task as u128), limit(3, on_full));
                store.create(&user_id, &id, &session(HOUR), max).await
            }
        });
        let (mut evicted, mut refused) = (Vec::new(), 0);
        for outcome in outcomes.await {
            match outcome {
                Ok(created) => evicted.extend(created.evicted.into_iter().map(|(id, _)| id)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::SessionLimit, "{error:?}");
                    refused += 1;
                }
            }
        }
        let live = listed(&*stores[0], &user_id).await;
        assert_eq!(live.len(), 3, "{on_full:?}: number of live sessions");
        assert_eq!(
            evicted.len() + refused + live.len(),
            LOGINS,
            "{on_full:?}: a session is neither live, nor evicted, nor refused"
        );
        assert_eq!(refused > 0, on_full == OnFull::Reject);
        let gone: HashSet<_> = evicted.iter().collect();
        assert_eq!(gone.len(), evicted.len(), "{on_full:?}: evicted twice");
        assert!(!live.iter().any(|id| gone.contains(id)), "{on_full:?}");
    }
}

/// Calls that begin after a logout has returned find no session, whatever checks and refreshes are in flight.
pub async fn a_delete_beats_checks_and_refreshes(backend: &impl Backend) {
    const TASKS: usize = 4;
    let stores = two_handles(backend).await;
    for round in 0..100 {
        let user_id: Arc<str> = format!("user {round}").into();
        let id = token_id(round);
        log_in(&*stores[0], &user_id, &id).await;
        let deleted = Arc::new(AtomicBool::new(false));
        let started = Arc::new(Barrier::new(TASKS + 1));
        let mut requests = JoinSet::new();
        for task in 0..TASKS {
            let (store, user_id) = (Arc::clone(&stores[task % 2]), Arc::clone(&user_id));
            let (deleted, started) = (Arc::clone(&deleted), Arc::clone(&started));
            let refreshes = task >= TASKS / 2;
            requests.spawn(async move {
                started.wait().await;
                loop {
                    let late = deleted.load(SeqCst);
                    let found = if refreshes {
                        let refreshed = store.refresh(&user_id, &id, DAY).await;
                        refreshed.expect("no error")
                    } else {
                        is_live(&*store, &user_id, &id).await
                    };
                    if late {
                        assert!(!found, "a deleted session is back; refresh: {refreshes}");
                        return;
                    }
                    // A store in memory never yields, so without this a failing test could not end.
                    yield_now().await;
                }
            });
        }
        let all_begin = timeout(Duration::from_secs(60), started.wait());
        all_begin.await.expect("every task begins");
        if round % 2 == 0 {
            let ended = stores[0].delete(&user_id, &id).await;
            assert!(ended.expect("no error"), "the session was live");
        } else {
            let ended = stores[0].delete_all(&user_id, None).await;
            assert_eq!(ended.expect("no error"), 1, "the session was live");
        }
        deleted.store(true, SeqCst);
        requests.join_all().await;
        assert!(!is_live(&*stores[1], &user_id, &id).await);
    }
}

/// Exactly one of the concurrent updates of the same version succeeds.
pub async fn one_of_many_conditional_updates_wins(backend: &impl Backend) {
    let stores = two_handles(backend).await;
    let id = token_id(1);
    let mut version = log_in(&*stores[0], "al", &id).await.version();
    for _ in 0..100 {
        // The version contains the time of the update, in milliseconds.
        tick().await;
        let updated = at_once(16, |task| {
            let store = Arc::clone(&stores[task % 2]);
            // Updates in the same millisecond differ by their ttl.
            let mut change = SessionChange::refresh(DAY + HOUR * task as u32);
            change.if_version = Some(version);
            async move {
                let updated = store.update("al", &id, &change).await;
                updated.expect("no error").and(change.ttl)
            }
        });
        let winners: Vec<_> = updated.await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "number of updates that succeeded");
        let session = live_session(&*stores[0], "al", &id).await;
        assert_eq!(session.expires_at, session.refreshed_at + winners[0]);
        version = session.version();
    }
}

/// A refresh without a condition wins over concurrent updates of the version before it.
pub async fn a_conditional_update_never_overwrites_a_refresh(backend: &impl Backend) {
    let stores = two_handles(backend).await;
    let id = token_id(1);
    log_in(&*stores[0], "al", &id).await;
    for _ in 0..100 {
        tick().await;
        let version = live_session(&*stores[0], "al", &id).await.version();
        let updated = at_once(8, |task| {
            let store = Arc::clone(&stores[task % 2]);
            let mut change = SessionChange::refresh(HOUR / 2);
            if task != 0 {
                change.ttl = Some(DAY + HOUR * task as u32);
                change.if_version = Some(version);
            }
            async move {
                let updated = store.update("al", &id, &change).await.expect("no error");
                (task, updated.is_some())
            }
        });
        let refreshed = updated.await.contains(&(0, true));
        assert!(refreshed, "a session that is live is refreshed");
        let session = live_session(&*stores[0], "al", &id).await;
        assert_eq!(session.expires_at, session.refreshed_at + HOUR / 2);
    }
}

/// Of many replacements of one token exactly one succeeds, and the session has its token.
pub async fn one_of_many_replacements_wins(backend: &impl Backend) {
    let stores = two_handles(backend).await;
    let id = token_id(0);
    log_in(&*stores[0], "al", &id).await;
    let mut current = id;
    for round in 1..=20 {
        let replaced = at_once(50, |task| {
            let store = Arc::clone(&stores[task % 2]);
            let new = token_id(1000 * round + task as u128);
            let change = replacement(current, new, HOUR);
            async move {
                let updated = store.update("al", &id, &change).await;
                updated.expect("no error").map(|_| new)
            }
        });
        let winners: Vec<_> = replaced.await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "number of replacements that succeeded");
        let session = live_session(&*stores[1], "al", &id).await;
        assert_eq!(session.current_token(&id), &winners[0]);
        current = winners[0];
    }
}

/// A logout beats concurrent replacements: once it has returned, no token of the session is live.
pub async fn a_delete_beats_replacements(backend: &impl Backend) {
    let stores = two_handles(backend).await;
    for round in 0..40_u128 {
        let id = token_id(round);
        log_in(&*stores[0], "al", &id).await;
        at_once(8, |task| {
            let store = Arc::clone(&stores[task % 2]);
            async move {
                if task == 0 {
                    store.delete("al", &id).await.expect("no error");
                } else if task == 1 {
                    store.delete_all("al", None).await.expect("no error");
                } else {
                    // Unconditional, so that each of them applies while the session lives.
                    let new = NewToken::new(token_id(1000 + task as u128), HOUR);
                    let change = SessionChange {
                        new_token: Some(new),
                        end_others: task % 2 == 0,
                        ..SessionChange::default()
                    };
                    store.update("al", &id, &change).await.expect("no error");
                }
            }
        })
        .await;
        assert!(!is_live(&*stores[1], "al", &id).await);
        assert_eq!(listed(&*stores[0], "al").await, []);
    }
}

/// The limit holds while sessions get new tokens and others log in.
pub async fn the_limit_holds_through_replacements(backend: &impl Backend) {
    let stores = two_handles(backend).await;
    let limit = limit(3, OnFull::EvictOldest);
    for round in 0..10_u128 {
        let ids = [0, 1, 2].map(|n| token_id(1_000_000 * round + n));
        for id in &ids {
            let created = stores[0].create("al", id, &session(HOUR), limit).await;
            created.expect("no error");
        }
        at_once(12, |task| {
            let store = Arc::clone(&stores[task % 2]);
            let new = token_id(1_000_000 * round + 1000 + task as u128);
            async move {
                if task % 4 == 0 {
                    let created = store.create("al", &new, &session(HOUR), limit).await;
                    created.expect("no error");
                } else {
                    let id = ids[task % 4 - 1];
                    let mut change = replacement(id, new, HOUR);
                    // Some of them one after the other.
                    change.if_token = change.if_token.filter(|_| task < 4);
                    store.update("al", &id, &change).await.expect("no error");
                }
            }
        })
        .await;
        assert_eq!(listed(&*stores[0], "al").await.len(), 3);
    }
}

async fn two_handles<B: Backend>(backend: &B) -> [Arc<B::Store>; 2] {
    [backend.store().await, backend.store().await].map(Arc::new)
}
