use std::{
    error::Error as _,
    future::pending,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};
use tower_bearer_session::{ErrorKind, EventKind, MemoryStore, TokenManager};

use super::{
    Answer, Checking, LONG_TIMEOUT, asking, asking_manager, built, cache_misses::CacheMisses,
    cached, checking, log_in,
};
use crate::{
    everything,
    stores::{Backend, on_every_store},
};

on_every_store!(
    two_hundred_checks_make_one_load,
    a_marker_of_another_service_does_not_split_a_load,
    users_are_loaded_side_by_side,
    a_caller_who_goes_away_takes_nothing_along,
    a_load_that_nobody_waits_for_is_finished,
    a_failure_is_everybodys_and_not_cached,
    a_panic_is_everybodys_and_not_cached,
    a_load_that_takes_too_long_has_failed,
);

/// However many checks miss the cache at once, the loader is asked once.
async fn two_hundred_checks_make_one_load(backend: &impl Backend) {
    let (manager, mut questions, token) = asking_manager(backend).await;
    let checks: Vec<_> = (0..200).map(|_| checking(&manager, &token)).collect();
    let question = questions.next().await;
    all_wait().await;
    question.detail("loaded");
    for check in checks {
        assert_eq!(check.await.unwrap().unwrap().as_deref(), Some("loaded"));
    }
    questions.assert_none();
}

/// Another service begins to load the user when one check has just found nothing and the next has not looked yet:
/// here it is one load all the same.
async fn a_marker_of_another_service_does_not_split_a_load(backend: &impl Backend) {
    let elsewhere = backend.manager_builder().await.build().unwrap();
    let (loader, mut questions) = asking();
    let (store, missing) = CacheMisses::of(backend.store().await);
    let manager = built(TokenManager::builder(store).load_user(loader));
    let token = log_in(&manager, "al").await;
    elsewhere.delete_user("al").await.unwrap();
    let early = checking(&manager, &token);
    let question = questions.next().await;
    missing.store(false, SeqCst);
    let late = checking(&manager, &token);
    all_wait().await;
    questions.assert_none();
    question.detail("loaded");
    for check in [early, late] {
        assert_eq!(check.await.unwrap().unwrap().as_deref(), Some("loaded"));
    }
}

/// Only loads of one user wait for each other.
async fn users_are_loaded_side_by_side(backend: &impl Backend) {
    let (manager, mut questions, al) = asking_manager(backend).await;
    let bo = log_in(&manager, "bo").await;
    let checks = [checking(&manager, &al), checking(&manager, &bo)];
    let both = [questions.next().await, questions.next().await];
    let mut ids = both.map(|question| {
        let id = question.user_id.clone();
        question.detail(&id);
        id
    });
    ids.sort();
    assert_eq!(ids, ["al", "bo"]);
    for (check, id) in checks.into_iter().zip(ids) {
        assert_eq!(check.await.unwrap().unwrap(), Some(id));
    }
}

/// The caller that started the load may go away: the others get their user from the same load.
async fn a_caller_who_goes_away_takes_nothing_along(backend: &impl Backend) {
    let (manager, mut questions, token) = asking_manager(backend).await;
    let first = checking(&manager, &token);
    let question = questions.next().await;
    let others = [(); 5].map(|()| checking(&manager, &token));
    all_wait().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    question.detail("loaded");
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().as_deref(), Some("loaded"));
    }
    questions.assert_none();
}

/// All callers may go away: what they asked for is cached for the next.
async fn a_load_that_nobody_waits_for_is_finished(backend: &impl Backend) {
    let (manager, mut questions, token) = asking_manager(backend).await;
    let caller = checking(&manager, &token);
    let question = questions.next().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    question.detail("loaded");
    let detail = cached(&manager, &token).await;
    assert_eq!(detail.as_deref(), Some("loaded"));
    questions.assert_none();
}

/// A load that fails has failed for all who waited, with its reason, and the next check tries again.
async fn a_failure_is_everybodys_and_not_cached(backend: &impl Backend) {
    fails(backend, || Answer::Failure("the database is down"), "down").await;
}

/// A loader that panics is a loader that fails.
async fn a_panic_is_everybodys_and_not_cached(backend: &impl Backend) {
    fails(backend, || Answer::Panic, "panic").await;
}

/// What a loader panics with may quote the user's data: it is not for logs.
#[tokio::test]
async fn the_message_of_a_panic_is_in_no_error() {
    const SECRET: &str = "hunter2";
    let panics = async |id: String| match id.is_empty() {
        true => Ok::<_, io::Error>(Some(id)),
        false => panic!("{SECRET}"),
    };
    let heard = Arc::new(Mutex::new(String::new()));
    let listener = Arc::clone(&heard);
    let builder = TokenManager::builder(MemoryStore::new()).load_user(panics);
    let manager = built(builder.on_event(move |event| {
        if let EventKind::Failed { error, .. } = event.kind() {
            listener.lock().unwrap().push_str(&everything(error));
        }
    }));
    let error = manager.add_user("al", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoadUser);
    let heard = heard.lock().unwrap().clone();
    for text in [everything(&error), heard] {
        assert!(text.contains("panicked"), "{text}");
        assert!(!text.contains(SECRET), "{text}");
    }
}

async fn fails(backend: &impl Backend, failure: impl Fn() -> Answer, reason: &str) {
    let (manager, mut questions, token) = asking_manager(backend).await;
    let checks: Vec<Checking> = (0..20).map(|_| checking(&manager, &token)).collect();
    let question = questions.next().await;
    all_wait().await;
    question.answer(failure());
    for check in checks {
        let error = check.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoadUser);
        let source = error.source().expect("a reason").to_string();
        assert!(source.contains(reason), "{source}");
    }
    questions.assert_none();
    let next = checking(&manager, &token);
    questions.next().await.detail("loaded");
    assert_eq!(next.await.unwrap().unwrap().as_deref(), Some("loaded"));
    let detail = cached(&manager, &token).await;
    assert_eq!(detail.as_deref(), Some("loaded"));
}

/// A load has its own time limit; after it the load is dropped, and the next check tries again.
async fn a_load_that_takes_too_long_has_failed(backend: &impl Backend) {
    let (loads, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
    let (counted, in_load) = (Arc::clone(&loads), Arc::clone(&running));
    let loader = move |id: String| {
        let (first, in_load) = (counted.fetch_add(1, SeqCst) == 0, Arc::clone(&in_load));
        async move {
            let _in_load = in_load;
            if first {
                pending::<()>().await;
            }
            Ok::<_, io::Error>(Some(id))
        }
    };
    let builder = backend.manager_builder().await.load_user(loader);
    let manager = built(builder.load_timeout(Duration::from_secs(1)));
    let token = log_in(&manager, "al").await;
    let error = checking(&manager, &token).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoadUser);
    assert!(error.to_string().contains("1s"), "{error}");
    let next = checking(&manager, &token).await.unwrap().unwrap();
    assert_eq!(next.as_deref(), Some("al"));
    assert_eq!(loads.load(SeqCst), 2);
    // Ours and the loader's are left, none of a load.
    let dropped = async {
        while Arc::strong_count(&running) > 2 {
            yield_now().await;
        }
    };
    timeout(LONG_TIMEOUT, dropped)
        .await
        .expect("a dropped load");
}

/// Gives tasks the time to get where they have to wait. A test that is right passes without it, too.
async fn all_wait() {
    sleep(Duration::from_millis(100)).await;
}

/// Of a manager; 100 unless it is set.
#[tokio::test(start_paused = true)]
async fn so_many_users_are_loaded_at_the_same_time() {
    for (bound, most) in [(None, 100), (Some(3), 3)] {
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, highest) = (Arc::clone(&running), Arc::clone(&peak));
        let mut builder = TokenManager::builder(MemoryStore::new()).load_user(move |id: String| {
            let (now, highest) = (Arc::clone(&now), Arc::clone(&highest));
            async move {
                highest.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, SeqCst);
                Ok::<_, io::Error>(Some(id))
            }
        });
        if let Some(bound) = bound {
            builder = builder.max_concurrent_loads(bound);
        }
        let manager = builder.build().unwrap();
        let mut checks = Vec::new();
        for n in 0..150 {
            let token = log_in(&manager, &format!("user {n}")).await;
            let manager = manager.clone();
            checks.push(tokio::spawn(async move {
                let user = manager.check_token_or_update_user(&token, None).await;
                assert!(user.unwrap().is_some());
            }));
        }
        for check in checks {
            check.await.unwrap();
        }
        assert_eq!(peak.load(SeqCst), most);
    }
}
