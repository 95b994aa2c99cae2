//! The sessions of all users.

use std::{panic::resume_unwind, sync::Arc};

use tokio::task::JoinSet;

use super::{
    TokenManager,
    background::{runtime_is_gone, spawn_in},
};
use crate::{
    Error,
    store::{UserCursor, UserPage},
};

/// The maximum number of users that [`TokenManager::delete_all_tokens`] logs out concurrently.
const LOGOUT_CONCURRENCY: usize = 8;

/// Administration: the sessions of all users.
impl<D> TokenManager<D> {
    /// Lists the users who have sessions, a page at a time.
    ///
    /// `after` is the [`next`](UserPage::next) of the page before, or `None` for the first page; it can go to a client
    /// and back, as text. A page may be empty even if more pages follow.
    ///
    /// The listing is not atomic. All its pages together contain every user who had a live session all the time,
    /// perhaps more than once. They may contain users whose sessions started or ended meanwhile, and users whose
    /// sessions have all expired, but are not freed yet: [`list_user_tokens`](Self::list_user_tokens) tells.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a cursor that is not one of the store, and
    /// faults. After [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), a listing may have to begin anew, as
    /// the message then says: when slots of a Redis cluster are moved, or Redis fails over.
    ///
    /// ```
    /// # use tower_bearer_session::{Error, TokenManager};
    /// async fn print_users(manager: &TokenManager) -> Result<(), Error> {
    ///     let mut after = None;
    ///     loop {
    ///         let page = manager.list_users(after.as_ref()).await?;
    ///         for user_id in page.users {
    ///             println!("{user_id}");
    ///         }
    ///         match page.next {
    ///             Some(next) => after = Some(next),
    ///             None => return Ok(()),
    ///         }
    ///     }
    /// }
    /// ```
    pub async fn list_users(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        self.inner.sessions.store.list_users(after).await
    }

    /// Ends all sessions of all users, one user after the other.
    ///
    /// It is not atomic: each user is logged out as by [`delete_user_tokens`](Self::delete_user_tokens), and reported
    /// by [`EventKind::LoggedOutAll`](crate::EventKind::LoggedOutAll). When the call has returned `Ok`, every session
    /// that was created before the call has ended. Sessions that are created during the call may live on. Cached users
    /// stay.
    ///
    /// Returns how many sessions were removed, which may include some that had already expired.
    ///
    /// Dropping the future stops it, but for the logouts in flight, which are completed. It is safe to repeat the call.
    ///
    /// # Errors
    ///
    /// The first fault stops the call: some users are logged out then, and the others are not. Repeat it to log out the
    /// rest.
    pub async fn delete_all_tokens(&self) -> Result<u64, Error> {
        let (mut ended, mut after) = (0, None);
        loop {
            let page = self.list_users(after.as_ref()).await?;
            ended += self.log_out(page.users).await?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(ended),
            }
        }
    }

    /// Ends all sessions of these users, a few at a time, until an error; returns the number of sessions.
    async fn log_out(&self, user_ids: Vec<String>) -> Result<u64, Error> {
        let mut user_ids = user_ids.into_iter().map(Arc::<str>::from);
        let mut running = JoinSet::new();
        let mut ended = 0;
        loop {
            for user_id in user_ids.by_ref().take(LOGOUT_CONCURRENCY - running.len()) {
                let sessions = self.sessions();
                spawn_in(&mut running, async move {
                    sessions.end_all(user_id, None).await
                });
            }
            match running.join_next().await {
                None => return Ok(ended),
                Some(Ok(outcome)) => ended += outcome?,
                Some(Err(error)) => match error.try_into_panic() {
                    // A panic propagates to the caller.
                    Ok(panic) => resume_unwind(panic),
                    Err(_) => return Err(runtime_is_gone()),
                },
            }
        }
    }
}
