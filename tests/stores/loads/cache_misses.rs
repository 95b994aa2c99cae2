use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use tower_bearer_session::{Error, SessionStore, TokenId, store::Checked};

use crate::stores::{Recheck, Rechecked};

/// Checks that do not find cached users, as if they had looked a moment earlier.
pub(super) struct CacheMisses(Arc<AtomicBool>);

impl CacheMisses {
    /// A store with such checks, and the switch: `true` while they miss.
    pub(super) fn of<S>(store: S) -> (Rechecked<S, Self>, Arc<AtomicBool>) {
        let missing = Arc::new(AtomicBool::new(true));
        let checks = Self(Arc::clone(&missing));
        (Rechecked { store, checks }, missing)
    }
}

impl<S: SessionStore> Recheck<S> for CacheMisses {
    async fn check(
        &self,
        store: &S,
        user_id: &str,
        token_id: &TokenId,
    ) -> Result<Option<Checked>, Error> {
        let mut checked = store.check(user_id, token_id).await?;
        if let Some(checked) = &mut checked
            && self.0.load(SeqCst)
        {
            checked.user = None;
        }
        Ok(checked)
    }
}

/// Remembers what the first check has found, and answers at once with that, whatever has changed since.
#[derive(Default)]
pub(super) struct Remembers(Mutex<Option<Checked>>);

impl<S: SessionStore> Recheck<S> for Remembers {
    async fn check(
        &self,
        store: &S,
        user_id: &str,
        token_id: &TokenId,
    ) -> Result<Option<Checked>, Error> {
        let checked = store.check(user_id, token_id).await?;
        let mut remembered = self.0.lock().unwrap();
        if remembered.is_none() {
            remembered.clone_from(&checked);
        }
        Ok(checked)
    }

    fn check_now(&self) -> Option<Result<Option<Checked>, Error>> {
        self.0
            .lock()
            .unwrap()
            .clone()
            .map(|checked| Ok(Some(checked)))
    }
}
