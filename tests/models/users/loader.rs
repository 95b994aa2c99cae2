//! A loader that does what a model wants.

use std::sync::Arc;

use crate::{Error, store::BoxFuture};

pub(super) struct Loader<D>(pub(super) Box<dyn Load<D>>);

/// What loads the user.
pub(super) trait Load<D>: Send + Sync {
    fn load(&self) -> BoxFuture<'_, UserToCache<D>>;
}

pub(super) struct UserToCache<D> {
    pub(super) detail: Option<Arc<D>>,
    pub(super) value: Vec<u8>,
}

impl<D> Loader<D> {
    pub(super) async fn load(&self, _user_id: &str) -> Result<UserToCache<D>, Error> {
        self.0.load().await
    }
}
