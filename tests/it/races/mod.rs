//! What must hold while calls run at the same time, on two managers or stores with a connection each.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    sync::Barrier,
    task::{JoinSet, yield_now},
    time::timeout,
};
use tower_bearer_session::{Token, TokenId, TokenManager, TokenManagerBuilder};

use crate::stores::Backend;

mod exactly_once;
mod limits;
mod logouts;

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

/// Runs so many tasks, which begin together, and returns what they return.
pub(crate) async fn at_once<F>(tasks: usize, task: impl Fn(usize) -> F) -> Vec<F::Output>
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

/// Waits until every task has come so far; a task that failed before must not hang the test.
async fn all_at(barrier: &Barrier) {
    let waiting = timeout(Duration::from_secs(60), barrier.wait());
    waiting.await.expect("a task failed before it got so far");
}
