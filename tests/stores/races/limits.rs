//! Session limits under many logins at once.

use std::collections::HashSet;

use tokio::task::JoinSet;
use tower_bearer_session::{
    Error, ErrorKind, IssuedToken, OnFull, Token, TokenId, TokenManager, TokenManagerBuilder,
    TokenOptions,
};

use super::{ids, is_valid, two_managers};
use crate::stores::{Backend, DAY, HOUR, at_once, on_every_store};

on_every_store!(
    the_limit_holds_and_the_evicted_are_reported,
    the_limit_holds_while_sessions_are_refreshed,
    in_single_mode_exactly_one_lives,
    reject_admits_exactly_as_many_as_fit,
);

/// 50 logins at once, at most 3 live; who is told to be evicted is dead, and nobody else.
async fn the_limit_holds_and_the_evicted_are_reported(backend: &impl Backend) {
    for on_full in [OnFull::EvictOldest, OnFull::EvictLeastRecentlyRefreshed] {
        let managers = two_managers(backend, |builder| builder.session_limit(3, on_full)).await;
        for round in 0..10 {
            let user_id = format!("user {round} {on_full:?}");
            let issued = log_in_at_once(&managers, &user_id).await;
            let issued: Vec<_> = issued.into_iter().map(Result::unwrap).collect();
            assert_eq!(live_of(&managers, &user_id, &issued, &[]).await.len(), 3);
        }
    }
}

/// The same while the sessions there were before are refreshed, as fast as can be.
async fn the_limit_holds_while_sessions_are_refreshed(backend: &impl Backend) {
    let on_full = OnFull::EvictLeastRecentlyRefreshed;
    let managers = two_managers(backend, |builder| builder.session_limit(3, on_full)).await;
    for round in 0..10 {
        let user_id = format!("user {round}");
        let mut before = Vec::new();
        let mut refreshes = JoinSet::new();
        for task in 0..3 {
            let token = managers[0].set_token(&user_id, HOUR).await.unwrap();
            before.push(token.clone());
            let manager = managers[task % 2].clone();
            refreshes.spawn(async move {
                // A few times, or until it is evicted.
                for _ in 0..30 {
                    if !manager
                        .refresh_token(token.expose_secret(), DAY)
                        .await
                        .unwrap()
                    {
                        break;
                    }
                }
            });
        }
        let issued = log_in_at_once(&managers, &user_id).await;
        let issued: Vec<_> = issued.into_iter().map(Result::unwrap).collect();
        refreshes.join_all().await;
        assert_eq!(
            live_of(&managers, &user_id, &issued, &before).await.len(),
            3
        );
    }
}

/// Of 50 logins at once one is left, and 49 are reported as evicted.
async fn in_single_mode_exactly_one_lives(backend: &impl Backend) {
    let managers = two_managers(backend, TokenManagerBuilder::single_mode).await;
    for round in 0..20 {
        let user_id = format!("user {round}");
        let issued = log_in_at_once(&managers, &user_id).await;
        let issued: Vec<_> = issued.into_iter().map(Result::unwrap).collect();
        assert_eq!(live_of(&managers, &user_id, &issued, &[]).await.len(), 1);
    }
}

/// Of 50 logins at once exactly 3 succeed; the others are told why, and left nothing.
async fn reject_admits_exactly_as_many_as_fit(backend: &impl Backend) {
    let managers = two_managers(backend, |builder| builder.session_limit(3, OnFull::Reject)).await;
    for round in 0..20 {
        let user_id = format!("user {round}");
        let mut issued = Vec::new();
        for outcome in log_in_at_once(&managers, &user_id).await {
            match outcome {
                Ok(token) => issued.push(token),
                Err(error) => assert_eq!(error.kind(), ErrorKind::SessionLimit),
            }
        }
        assert_eq!(issued.len(), 3);
        assert_eq!(live_of(&managers, &user_id, &issued, &[]).await.len(), 3);
    }
}

/// 50 logins of one user, half of them by each manager.
async fn log_in_at_once(
    managers: &[TokenManager<String>; 2],
    user_id: &str,
) -> Vec<Result<IssuedToken, Error>> {
    at_once(50, |task| {
        let (manager, user_id) = (managers[task % 2].clone(), user_id.to_owned());
        async move { manager.set_token_with(&user_id, TokenOptions::new()).await }
    })
    .await
}

/// The live ones of these sessions, which are all that the user ever had. All others must be reported as
/// evicted, once.
async fn live_of(
    managers: &[TokenManager<String>; 2],
    user_id: &str,
    issued: &[IssuedToken],
    before: &[Token],
) -> HashSet<TokenId> {
    let evicted = issued.iter().flat_map(|issued| &issued.evicted);
    let evicted: Vec<_> = evicted.map(|evicted| *evicted.id()).collect();
    let once: HashSet<_> = evicted.iter().copied().collect();
    assert_eq!(once.len(), evicted.len(), "evicted twice");

    let live = ids(&managers[0], user_id).await;
    for token in issued.iter().map(|issued| &issued.token).chain(before) {
        let lives = live.contains(token.id());
        assert_eq!(is_valid(&managers[1], token).await, lives);
        assert_ne!(once.contains(token.id()), lives);
    }
    assert_eq!(live.len() + once.len(), issued.len() + before.len());
    live
}
