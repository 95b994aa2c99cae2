//! Of many calls that do the same at once, one does it.

use std::sync::Arc;

use tower_bearer_session::{SessionStore, store::PutMode};

use super::at_once;
use crate::stores::{Backend, HOUR, log_in, on_every_store, token_id};

on_every_store!(
    one_of_many_deletes_ends_the_session,
    every_session_is_ended_once,
    one_of_many_conditional_puts_wins,
);

/// Each of 16 calls may end it, one does.
async fn one_of_many_deletes_ends_the_session(backend: &impl Backend) {
    let stores = [backend.store().await, backend.store().await];
    for round in 0..100 {
        let id = token_id(round);
        log_in(&stores[0], "al", &id).await;
        let ended = at_once(16, |task| {
            let store = stores[task % 2].clone();
            async move { store.delete("al", &id).await.unwrap() }
        });
        assert_eq!(ended.await.into_iter().filter(|ended| *ended).count(), 1);
    }
}

/// Logins, logouts and logouts of all at once: what all of them say adds up.
async fn every_session_is_ended_once(backend: &impl Backend) {
    const LOGINS: u128 = 40;
    let stores = [backend.store().await, backend.store().await];
    for round in 0..10 {
        let user_id: Arc<str> = format!("user {round}").into();
        let ended = at_once(12, |task| {
            let (store, user_id) = (stores[task % 2].clone(), Arc::clone(&user_id));
            async move {
                let mut ended = 0;
                for n in 0..LOGINS {
                    let id = token_id(n + 1000 * task as u128);
                    log_in(&store, &user_id, &id).await;
                    match n % 4 {
                        1 => ended += u64::from(store.delete(&user_id, &id).await.unwrap()),
                        2 => ended += store.delete_all(&user_id, Some(&id)).await.unwrap(),
                        3 => ended += store.delete_all(&user_id, None).await.unwrap(),
                        _ => {}
                    }
                }
                ended
            }
        });
        let ended: u64 = ended.await.into_iter().sum();
        let live = stores[0].list(&user_id).await.unwrap().len() as u64;
        assert_eq!(ended + live, 12 * LOGINS as u64);
    }
}

/// Of those that saw the same, one writes; the others are told that they did not.
async fn one_of_many_conditional_puts_wins(backend: &impl Backend) {
    let stores = [backend.store().await, backend.store().await];
    let mut seen: Option<Vec<u8>> = None;
    for round in 0..100_u8 {
        let written = at_once(16, |task| {
            let (store, seen) = (stores[task % 2].clone(), seen.clone());
            async move {
                let (value, mode) = (
                    vec![round, task as u8],
                    PutMode::IfUnchanged(seen.as_deref()),
                );
                let written = store.put_user("al", &value, HOUR, mode).await.unwrap();
                written.then_some(value)
            }
        });
        let mut winners = written.await.into_iter().flatten();
        let winner = winners.next();
        assert!(winner.is_some() && winners.next().is_none());
        assert_eq!(
            stores[0].get_user("al").await.unwrap().map(Vec::from),
            winner
        );
        seen = winner;
    }
}
