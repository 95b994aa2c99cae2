//! The security bugs of this kind of software, each as a test; those that are races are in `races`.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tower_bearer_session::TokenManager;

use crate::stores::Backend;

mod bogus_tokens;
mod dead_tokens;
mod debug;
mod secrets;
mod ttls;
mod undecodable;

/// A manager whose users have their ids for details, and how often it loaded one.
async fn counting_manager(backend: &impl Backend) -> (TokenManager<String>, Arc<AtomicUsize>) {
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&loads);
    let builder = backend.manager_builder().await.load_user(move |id| {
        counted.fetch_add(1, SeqCst);
        async move { Ok::<_, Infallible>(Some(id)) }
    });
    (builder.build().unwrap(), loads)
}
