//! What must hold while calls run at the same time, on two managers with a connection each. (The store itself:
//! `conformance::…::concurrency`.)

use std::{collections::HashSet, convert::Infallible, time::Duration};

use tokio::{sync::Barrier, task::yield_now, time::timeout};
use tower_bearer_session::{Token, TokenId, TokenManager, TokenManagerBuilder};

use crate::stores::Backend;

mod abandoned;
mod limits;
mod logouts;
mod renewals;
mod replacements;
mod unclaimed;
mod undos;

/// Two managers, each with a connection of its own and a loader that takes a moment.
async fn two_managers(
    backend: &impl Backend,
    configure: impl Fn(TokenManagerBuilder<String>) -> TokenManagerBuilder<String>,
) -> [TokenManager<String>; 2] {
    let builders = [
        backend.manager_builder().await,
        backend.manager_builder().await,
    ];
    builders.map(|builder| {
        let builder = builder.load_user(async |user_id: String| {
            yield_now().await;
            Ok::<_, Infallible>(Some(user_id))
        });
        configure(builder).build().unwrap()
    })
}

/// Checks with a user that is cached for a moment only, so that many checks load it.
async fn is_valid(manager: &TokenManager<String>, token: &Token) -> bool {
    let user_ttl = Duration::from_millis(1);
    let user = manager.check_token_or_update_user(token.expose_secret(), user_ttl);
    user.await.unwrap().is_some()
}

/// The ids of a user's live sessions.
async fn ids(manager: &TokenManager<String>, user_id: &str) -> HashSet<TokenId> {
    let tokens = manager.list_user_tokens(user_id).await.unwrap();
    tokens.iter().map(|token| *token.id()).collect()
}

/// Waits until every task has come so far; a task that failed before must not hang the test.
async fn all_at(barrier: &Barrier) {
    let waiting = timeout(Duration::from_secs(60), barrier.wait());
    waiting.await.expect("a task failed before it got so far");
}
