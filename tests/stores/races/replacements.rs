//! Replacements of tokens against logins, logouts and other replacements of the same user.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    sync::Barrier,
    task::{JoinSet, yield_now},
};
use tower_bearer_session::{
    OnFull, ReplaceOptions, Replacement, Token, TokenManager, TokenManagerBuilder, TokenOptions,
};

use super::{all_at, ids, is_valid, two_managers};
use crate::stores::{Backend, HOUR, SHORT, at_once, on_every_store, outlive_short};

on_every_store!(
    logins_before_the_others_end_die_and_those_after_it_live,
    the_limit_holds_while_the_others_end,
    a_replacement_and_a_logout_of_the_others_agree,
    a_replacement_does_not_bring_back_what_a_limit_evicted,
    of_a_thief_and_the_owner_at_once_one_gets_a_token,
    without_a_grace_a_thief_and_the_owner_at_once_both_lose_the_session,
);

fn graceful() -> ReplaceOptions {
    ReplaceOptions::new().grace(HOUR)
}

async fn replace(
    manager: &TokenManager<String>,
    token: &Token,
    options: ReplaceOptions,
) -> Replacement {
    let replacement = manager.replace_token(token.expose_secret(), options);
    replacement.await.unwrap()
}

/// The new token, if the replacement issued one.
fn issued(replacement: Replacement) -> Option<Token> {
    match replacement {
        Replacement::Replaced { issued, .. } => Some(issued.token),
        _ => None,
    }
}

/// A login that returned before the replacement began is dead; one that began after it returned is live; the list agrees.
/// The session of the replaced token is kept.
async fn logins_before_the_others_end_die_and_those_after_it_live(backend: &impl Backend) {
    const TASKS: usize = 6;
    const BEFORE: u8 = 0;
    const DURING: u8 = 1;
    const AFTER: u8 = 2;

    let managers = two_managers(backend, |builder| builder).await;
    for round in 0..40 {
        let user_id = format!("user {round}");
        let kept = managers[0].set_token(&user_id, HOUR).await.unwrap();
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
        let replacement = replace(&managers[round % 2], &kept, graceful().end_others()).await;
        phase.store(AFTER, SeqCst);
        let Replacement::Replaced { issued, ended, .. } = replacement else {
            panic!("the token is live: {replacement:?}");
        };
        assert!(ended >= TASKS as u64);

        let mut live = HashSet::from([*kept.id()]);
        for token in [&kept, &issued.token] {
            assert!(is_valid(&managers[1], token).await);
        }
        for (token, began, returned) in logins.join_all().await.concat() {
            let lives = is_valid(&managers[0], &token).await;
            assert!(!lives || returned != BEFORE, "a login before it survived");
            assert!(lives || began != AFTER, "a login after it died");
            if lives {
                live.insert(*token.id());
            }
        }
        assert_eq!(ids(&managers[1], &user_id).await, live);
    }
}

/// At every moment, and each session that is not live was evicted, ended or refused a new token.
async fn the_limit_holds_while_the_others_end(backend: &impl Backend) {
    const TASKS: usize = 8;
    let limited = |builder: TokenManagerBuilder<String>| {
        builder.session_limit(3, OnFull::EvictLeastRecentlyRefreshed)
    };
    let managers = two_managers(backend, limited).await;
    for round in 0..10 {
        let user_id: Arc<str> = format!("user {round}").into();
        let tokens = at_once(TASKS, |task| {
            let (manager, user_id) = (managers[task % 2].clone(), Arc::clone(&user_id));
            async move {
                let mut tokens = Vec::new();
                for n in 0..6 {
                    let token = manager.set_token(&user_id, HOUR).await.unwrap();
                    let options = match (task + n) % 3 {
                        0 => graceful().end_others(),
                        1 => graceful().ttl(HOUR),
                        _ => graceful(),
                    };
                    // Others may have ended the session in between.
                    let new = issued(replace(&manager, &token, options).await);
                    tokens.push((token, new));
                    let live = ids(&manager, &user_id).await;
                    assert!(live.len() <= 3, "{} live sessions", live.len());
                }
                tokens
            }
        });
        let tokens = tokens.await.concat();
        let live = ids(&managers[0], &user_id).await;
        assert!((1..=3).contains(&live.len()), "{} sessions", live.len());
        // All tokens of a session are live, or none.
        for (token, new) in &tokens {
            for token in new.iter().chain([token]) {
                let lives = live.contains(token.id());
                assert_eq!(is_valid(&managers[1], token).await, lives);
            }
        }
    }
}

/// The session that a logout excepts is live with the token that the replacement has issued; any other is not live.
async fn a_replacement_and_a_logout_of_the_others_agree(backend: &impl Backend) {
    let managers = two_managers(backend, |builder| builder).await;
    for round in 0..60 {
        let user_id = format!("user {round}");
        let mine = managers[0].set_token(&user_id, HOUR).await.unwrap();
        let other = managers[0].set_token(&user_id, HOUR).await.unwrap();
        let is_excepted = round % 2 == 0;
        let kept = if is_excepted { &mine } else { &other };
        let (first, second) = (managers[0].clone(), managers[1].clone());
        let mut options = graceful();
        // Otherwise both may end the other's session.
        if is_excepted && round % 4 == 0 {
            options = options.end_others();
        }
        let (replacement, ended) = tokio::join!(
            tokio::spawn({
                let mine = mine.clone();
                async move { replace(&first, &mine, options).await }
            }),
            tokio::spawn({
                let (user_id, kept) = (user_id.clone(), *kept.id());
                async move { second.delete_other_user_tokens(&user_id, &kept).await }
            }),
        );
        let (new, ended) = (issued(replacement.unwrap()), ended.unwrap().unwrap());
        assert!(ended <= 1, "{ended} sessions");
        assert!(new.is_some() || !is_excepted, "nothing has ended it");
        for token in new.iter().chain([&mine]) {
            assert_eq!(is_valid(&managers[1], token).await, is_excepted, "{round}");
        }
        assert_eq!(is_valid(&managers[0], &other).await, !is_excepted);
        assert_eq!(ids(&managers[0], &user_id).await, [*kept.id()].into());
    }
}

/// Once the login has returned, the session that it has evicted is not live with any token, and gets no other one.
async fn a_replacement_does_not_bring_back_what_a_limit_evicted(backend: &impl Backend) {
    const TASKS: usize = 4;
    // All together no more than a session remembers: the grace of a token that is forgotten is over.
    const REPLACEMENTS: usize = 4;
    let managers = two_managers(backend, TokenManagerBuilder::single_mode).await;
    for round in 0..40 {
        let user_id = format!("user {round}");
        let first = managers[0].set_token(&user_id, HOUR).await.unwrap();
        let tokens = Arc::new(Mutex::new(vec![first.clone()]));
        let is_evicted = Arc::new(AtomicBool::new(false));
        let started = Arc::new(Barrier::new(TASKS + 1));
        let mut replacements = JoinSet::new();
        for task in 0..TASKS {
            let (manager, tokens) = (managers[task % 2].clone(), Arc::clone(&tokens));
            let (is_evicted, started) = (Arc::clone(&is_evicted), Arc::clone(&started));
            replacements.spawn(async move {
                let options = match task {
                    0 => graceful().end_others(),
                    _ => graceful(),
                };
                let mut replaced = 0;
                started.wait().await;
                loop {
                    let is_late = is_evicted.load(SeqCst);
                    if is_late || replaced < REPLACEMENTS {
                        let token = tokens.lock().unwrap().last().unwrap().clone();
                        match replace(&manager, &token, options.clone()).await {
                            Replacement::NotLive => {}
                            Replacement::Replaced { issued, .. } if !is_late => {
                                tokens.lock().unwrap().push(issued.token);
                                replaced += 1;
                            }
                            Replacement::AlreadyReplaced if !is_late => {}
                            other => panic!("{other:?}, late: {is_late}"),
                        }
                    }
                    if is_late {
                        return;
                    }
                    yield_now().await;
                }
            });
        }
        all_at(&started).await;
        let login = managers[round % 2].set_token_with(&user_id, TokenOptions::new());
        let login = login.await.unwrap();
        is_evicted.store(true, SeqCst);
        replacements.join_all().await;
        let tokens = tokens.lock().unwrap().clone();
        for token in &tokens {
            assert!(!is_valid(&managers[0], token).await);
        }
        let evicted: Vec<_> = login.evicted.iter().map(|evicted| *evicted.id()).collect();
        assert_eq!(evicted, [*first.id()]);
        assert!(is_valid(&managers[1], &login.token).await);
        let live = ids(&managers[1], &user_id).await;
        assert_eq!(live, [*login.token.id()].into());
    }
}

/// Who comes second gets no token; and when they present the old one after its grace, both have lost the session.
async fn of_a_thief_and_the_owner_at_once_one_gets_a_token(backend: &impl Backend) {
    let managers = two_managers(backend, |builder| builder).await;
    let mut rounds = Vec::new();
    for round in 0..40 {
        let user_id = format!("user {round}");
        let stolen = managers[0].set_token(&user_id, HOUR).await.unwrap();
        let elsewhere = managers[0].set_token(&user_id, HOUR).await.unwrap();
        let replacements = at_once(2, |who| {
            let (manager, stolen) = (managers[who].clone(), stolen.clone());
            async move { replace(&manager, &stolen, ReplaceOptions::new().grace(SHORT)).await }
        });
        let mut new = Vec::new();
        for replacement in replacements.await {
            match replacement {
                Replacement::Replaced { issued, .. } => new.push(issued.token),
                // The latter if the machine was so busy that the grace was over.
                Replacement::AlreadyReplaced | Replacement::Reused => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(new.len(), 1, "number of new tokens");
        rounds.push((user_id, stolen, elsewhere, new.remove(0)));
    }
    outlive_short().await;
    for (user_id, stolen, elsewhere, new) in rounds {
        let replacement = replace(&managers[0], &stolen, graceful()).await;
        let is_refused = matches!(replacement, Replacement::Reused | Replacement::NotLive);
        assert!(is_refused, "{replacement:?}");
        assert!(!is_valid(&managers[1], &new).await);
        let live = ids(&managers[1], &user_id).await;
        assert_eq!(live, [*elsewhere.id()].into());
    }
}

/// The second one reuses the token, whichever of them that is.
async fn without_a_grace_a_thief_and_the_owner_at_once_both_lose_the_session(
    backend: &impl Backend,
) {
    let managers = two_managers(backend, |builder| builder).await;
    for round in 0..40 {
        let user_id = format!("user {round}");
        let stolen = managers[0].set_token(&user_id, HOUR).await.unwrap();
        let replacements = at_once(2, |who| {
            let (manager, stolen) = (managers[who].clone(), stolen.clone());
            async move {
                let no_grace = ReplaceOptions::new().grace(Duration::ZERO);
                replace(&manager, &stolen, no_grace).await
            }
        });
        let mut replacements = replacements.await;
        let is_replaced = |one: &Replacement| matches!(one, Replacement::Replaced { .. });
        replacements.sort_by_key(is_replaced);
        let [second, Replacement::Replaced { issued, .. }] = &replacements[..] else {
            panic!("{replacements:?}");
        };
        assert!(matches!(second, Replacement::Reused), "{second:?}");
        assert!(!is_valid(&managers[0], &issued.token).await);
        assert!(ids(&managers[1], &user_id).await.is_empty());
    }
}
