//! One test, at least, for each known defect of gosession, from which this crate took its job.
//!
//! Not here: of defect 12 the four round trips per check are in `round_trips`. Defect 13 (without random
//! bytes the clock made the tokens) cannot be provoked from outside; `Token::mint` has one source of
//! randomness and returns its failure.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::sleep;
use tower_bearer_session::{TokenManager, TokenManagerBuilder};

use crate::stores::{Backend, HOUR};

mod tokens;
mod users;

/// A manager whose users have their ids for details, and how often it loaded one.
async fn counting_manager(
    backend: &impl Backend,
    configure: impl Fn(TokenManagerBuilder<String>) -> TokenManagerBuilder<String>,
) -> (TokenManager<String>, Arc<AtomicUsize>) {
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&loads);
    let builder = backend.manager_builder().await.load_user(move |id| {
        counted.fetch_add(1, SeqCst);
        async move {
            // As a database does, so that calls at the same time meet.
            sleep(Duration::from_millis(5)).await;
            Ok::<_, Infallible>(Some(id))
        }
    });
    (configure(builder).build().unwrap(), loads)
}

async fn log_in<D>(manager: &TokenManager<D>, user_id: &str) -> String {
    let token = manager.set_token(user_id, HOUR).await.unwrap();
    token.expose_secret().to_owned()
}

async fn is_valid<D>(manager: &TokenManager<D>, token: &str) -> bool {
    manager.check_token(token).await.unwrap().is_some()
}
