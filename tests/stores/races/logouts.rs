//! Logouts against checks, refreshes and logins in flight.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
    },
};

use tokio::{
    sync::{Barrier, Notify},
    task::{JoinSet, yield_now},
};
use tower_bearer_session::{Token, TokenId, TokenManager};

use super::{all_at, ids, is_valid, two_managers};
use crate::stores::{Backend, DAY, HOUR, on_every_store};

on_every_store!(
    a_logout_beats_checks_and_refreshes,
    a_logout_of_all_beats_checks_and_refreshes,
    a_logout_of_the_others_beats_checks_and_refreshes,
    a_logout_of_all_is_one_step,
    a_logout_beats_a_check_that_still_loads,
    logins_before_a_logout_of_all_die_and_those_after_it_live,
);

/// After each token was deleted, by the token or by its handle, nothing brings it back.
async fn a_logout_beats_checks_and_refreshes(backend: &impl Backend) {
    log_out_under_load(backend, None, async |[one, other], user_id, tokens| {
        for (n, token) in tokens.iter().enumerate() {
            let ended = match n % 2 {
                0 => one.delete_token(token.expose_secret()).await,
                _ => other.delete_user_token(user_id, token.id()).await,
            };
            assert!(ended.unwrap());
        }
    })
    .await;
}

/// The same for all tokens at once.
async fn a_logout_of_all_beats_checks_and_refreshes(backend: &impl Backend) {
    log_out_under_load(backend, None, async |[one, _], user_id, tokens| {
        let ended = one.delete_user_tokens(user_id).await.unwrap();
        assert_eq!(ended, tokens.len() as u64);
    })
    .await;
}

/// The same for all but one, which is never hurt.
async fn a_logout_of_the_others_beats_checks_and_refreshes(backend: &impl Backend) {
    log_out_under_load(backend, Some(1), async |[one, _], user_id, tokens| {
        let ended = one.delete_other_user_tokens(user_id, tokens[1].id()).await;
        assert_eq!(ended.unwrap(), tokens.len() as u64 - 1);
    })
    .await;
}

/// Who has seen one of the sessions dead finds all of them dead, in whatever order: there is no moment with
/// half of them.
async fn a_logout_of_all_is_one_step(backend: &impl Backend) {
    const TOKENS: usize = 16;
    let managers = two_managers(backend, |builder| builder).await;
    for round in 0..50 {
        let user_id = format!("user {round}");
        let mut tokens = Vec::new();
        for _ in 0..TOKENS {
            tokens.push(managers[0].set_token(&user_id, HOUR).await.unwrap());
        }
        let started = Arc::new(Barrier::new(5));
        let mut requests = JoinSet::new();
        for task in 0..4 {
            let (manager, mut tokens) = (managers[task % 2].clone(), tokens.clone());
            let started = Arc::clone(&started);
            tokens.rotate_left(task * TOKENS / 4);
            requests.spawn(async move {
                started.wait().await;
                while is_valid(&manager, &tokens[0]).await {
                    yield_now().await;
                }
                let mut valid = 0;
                for token in &tokens {
                    valid += usize::from(is_valid(&manager, token).await);
                }
                valid
            });
        }
        all_at(&started).await;
        managers[0].delete_user_tokens(&user_id).await.unwrap();
        for valid in requests.join_all().await {
            assert_eq!(valid, 0, "another was dead already");
        }
    }
}

/// The session was live when the load of its user began, and is not when it ends.
async fn a_logout_beats_a_check_that_still_loads(backend: &impl Backend) {
    let (loading, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (began, wait) = (Arc::clone(&loading), Arc::clone(&finish));
    let builder = backend.manager_builder().await;
    let manager = builder.load_user(move |user_id| {
        let (began, wait) = (Arc::clone(&began), Arc::clone(&wait));
        async move {
            began.notify_one();
            wait.notified().await;
            Ok::<_, Infallible>(Some(user_id))
        }
    });
    let manager = manager.build().unwrap();
    for of_all in [false, true] {
        let token = manager.set_token("al", HOUR).await.unwrap();
        manager.delete_user("al").await.unwrap();
        let check = {
            let (manager, token) = (manager.clone(), token.clone());
            tokio::spawn(async move { is_valid(&manager, &token).await })
        };
        loading.notified().await;
        if of_all {
            assert_eq!(manager.delete_user_tokens("al").await.unwrap(), 1);
        } else {
            assert!(manager.delete_token(token.expose_secret()).await.unwrap());
        }
        finish.notify_one();
        assert!(!check.await.unwrap());
    }
}

/// A login that returned before the logout of all began is dead; one that began after it returned is
/// live; of those in between each is either, and the list agrees.
async fn logins_before_a_logout_of_all_die_and_those_after_it_live(backend: &impl Backend) {
    const TASKS: usize = 6;
    const BEFORE: u8 = 0;
    const DURING: u8 = 1;
    const AFTER: u8 = 2;

    let managers = two_managers(backend, |builder| builder).await;
    for round in 0..50 {
        let user_id = format!("user {round}");
        let phase = Arc::new(AtomicU8::new(BEFORE));
        let started = Arc::new(Barrier::new(TASKS + 1));
        let mut logins = JoinSet::new();
        for task in 0..TASKS {
            let (manager, user_id) = (managers[task % 2].clone(), user_id.clone());
            let (phase, started) = (Arc::clone(&phase), Arc::clone(&started));
            logins.spawn(async move {
                let mut minted = Vec::new();
                loop {
                    let began = phase.load(SeqCst);
                    let token = manager.set_token(&user_id, HOUR).await.unwrap();
                    minted.push((token, began, phase.load(SeqCst)));
                    if minted.len() == 1 {
                        started.wait().await;
                    }
                    if began == AFTER {
                        return minted;
                    }
                    yield_now().await;
                }
            });
        }
        all_at(&started).await;
        phase.store(DURING, SeqCst);
        let ended = managers[round % 2]
            .delete_user_tokens(&user_id)
            .await
            .unwrap();
        phase.store(AFTER, SeqCst);
        assert!(ended >= TASKS as u64);

        let mut live = HashSet::new();
        for (token, began, returned) in logins.join_all().await.concat() {
            let lives = is_valid(&managers[0], &token).await;
            if returned == BEFORE {
                assert!(!lives, "a login before it survived");
            }
            if began == AFTER {
                assert!(lives, "a login after it died");
            }
            if lives {
                live.insert(*token.id());
            }
        }
        assert_eq!(ids(&managers[1], &user_id).await, live);
    }
}

/// Many rounds of checks (that load the user) and refreshes of three tokens by two managers, against
/// `log_out`. What begins after it returned must find nothing, but for the token to be `kept`.
async fn log_out_under_load(
    backend: &impl Backend,
    kept: Option<usize>,
    log_out: impl AsyncFn(&[TokenManager<String>; 2], &str, &[Token]),
) {
    const ROUNDS: usize = 200;
    const TOKENS: usize = 3;
    // Per manager and token one that checks and one that refreshes.
    const TASKS: usize = 4 * TOKENS;

    let managers = two_managers(backend, |builder| builder).await;
    for round in 0..ROUNDS {
        let user_id = format!("user {round}");
        let mut tokens = Vec::new();
        for _ in 0..TOKENS {
            tokens.push(managers[0].set_token(&user_id, HOUR).await.unwrap());
        }
        let logged_out = Arc::new(AtomicBool::new(false));
        let started = Arc::new(Barrier::new(TASKS + 1));
        let mut requests = JoinSet::new();
        for task in 0..TASKS {
            let number = task / 4;
            let (manager, token) = (managers[task % 2].clone(), tokens[number].clone());
            let (logged_out, started) = (Arc::clone(&logged_out), Arc::clone(&started));
            let refreshes = task % 4 >= 2;
            requests.spawn(async move {
                let mut first = true;
                loop {
                    let late = logged_out.load(SeqCst);
                    let valid = if refreshes {
                        let refreshed = manager.refresh_token(token.expose_secret(), DAY);
                        refreshed.await.unwrap()
                    } else {
                        is_valid(&manager, &token).await
                    };
                    if first {
                        assert!(valid, "the token died too early");
                        started.wait().await;
                        first = false;
                    }
                    if late {
                        assert_eq!(valid, kept == Some(number), "refresh: {refreshes}");
                        return;
                    }
                    // A store in memory never waits: without this, a failed test could not end.
                    yield_now().await;
                }
            });
        }
        all_at(&started).await;
        log_out(&managers, &user_id, &tokens).await;
        logged_out.store(true, SeqCst);
        requests.join_all().await;

        let kept: HashSet<TokenId> = kept.iter().map(|kept| *tokens[*kept].id()).collect();
        for token in &tokens {
            assert_eq!(
                is_valid(&managers[1], token).await,
                kept.contains(token.id())
            );
        }
        assert_eq!(ids(&managers[1], &user_id).await, kept);
    }
}
