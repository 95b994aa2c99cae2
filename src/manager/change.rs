//! Changes of a live session: its expiry, its metadata, and its last authentication.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{
    TokenManager,
    check::Late,
    metadata,
    sessions::{Change, Subject},
};
use crate::{
    Error, ErrorKind, TokenId,
    store::SessionChange,
    token::{ParsedToken, check_user_id},
};

/// The maximum number of attempts at a change that starts over after a concurrent one.
pub(super) const ATTEMPTS: usize = 16;

/// The error after so many attempts.
pub(super) fn changed_too_often() -> Error {
    let message = "the session was changed at the same time; try again";
    Error::new(ErrorKind::Unavailable, message)
}

impl<D> TokenManager<D> {
    /// Changes the metadata of a live session, and returns the new metadata; `None` if the session is not live.
    ///
    /// `update` gets the current metadata. It is called again if another change came in between: so no change is lost.
    /// If the store's reply to a write is lost, it may also be called with metadata that already have its change. The
    /// scopes are not among the metadata: [a replacement](Self::replace_token) changes them.
    ///
    /// It takes two round trips, unless there are concurrent changes.
    ///
    /// ```
    /// # use tower_bearer_session::{Error, MemoryStore, TokenManager};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
    /// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
    /// let token = manager.set_token("alice", None).await?;
    /// let renamed = manager.update_token_metadata("alice", token.id(), |metadata| {
    ///     metadata.insert("device".into(), "Alice's phone".into());
    /// });
    /// assert_eq!(renamed.await?.unwrap()["device"], "Alice's phone");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for metadata as in [`set_token_with`](Self::set_token_with), and faults, also if
    /// there were too many concurrent changes.
    pub async fn update_token_metadata(
        &self,
        user_id: &str,
        token_id: &TokenId,
        update: impl FnMut(&mut Map<String, Value>) + Send,
    ) -> Result<Option<Map<String, Value>>, Error> {
        check_user_id(user_id)?;
        let user_id: Arc<str> = user_id.into();
        let Some(checked) = self.look_up(&user_id, token_id).wait().await? else {
            return Ok(None);
        };
        let current = checked.session.metadata();
        self.change_metadata(user_id, *token_id, current, update)
            .await
    }

    /// Changes the metadata of a session from `current`, or from what they have become.
    pub(crate) async fn change_metadata(
        &self,
        user_id: Arc<str>,
        session: TokenId,
        mut current: Bytes,
        mut update: impl FnMut(&mut Map<String, Value>) + Send,
    ) -> Result<Option<Map<String, Value>>, Error> {
        for _ in 0..ATTEMPTS {
            let mut entries = metadata::entries(Some(&current));
            update(&mut entries);
            let wanted = metadata::replace(&current, &entries, &metadata::scopes(Some(&current)))?;
            let change = SessionChange {
                metadata: Some(wanted),
                if_metadata: Some(current),
                ..SessionChange::default()
            };
            if self.change_session(&user_id, session, change, None).await? {
                return Ok(Some(entries));
            }
            let Some(checked) = self.look_up(&user_id, &session).wait().await? else {
                return Ok(None);
            };
            current = checked.session.metadata();
        }
        Err(changed_too_often())
    }

    /// Refreshes the session of a token that is its current one.
    pub(crate) async fn refresh_session(
        &self,
        token: &ParsedToken,
        metadata: Option<Bytes>,
        ttl: Duration,
        late: Late,
    ) -> Result<bool, Error> {
        let change = SessionChange::refresh(ttl);
        self.change_by_token(token, metadata, change, Change::Refreshed, late)
            .await
    }

    /// Notes that the user of a session has just proved again who they are, if the token is its current one.
    pub(crate) async fn authenticate_again(
        &self,
        token: &ParsedToken,
        metadata: Option<Bytes>,
        late: Late,
    ) -> Result<bool, Error> {
        let change = SessionChange {
            authenticated: true,
            ..SessionChange::default()
        };
        self.change_by_token(token, metadata, change, Change::Authenticated, late)
            .await
    }

    /// Changes the session of a token that is its current one, and reports it with the metadata, if they are known.
    /// `late` tells what it means if the token is past its grace.
    async fn change_by_token(
        &self,
        token: &ParsedToken,
        metadata: Option<Bytes>,
        mut change: SessionChange,
        event: fn(Subject) -> Change,
        late: Late,
    ) -> Result<bool, Error> {
        let token_id = token.ids.session;
        change.if_token = Some(token.ids.token);
        for _ in 0..ATTEMPTS {
            let metadata = metadata.clone();
            let event = Some(event(Subject { token_id, metadata }));
            if self
                .change_session(&token.user_id, token_id, change.clone(), event)
                .await?
            {
                return Ok(true);
            }
            if self.why_unchanged(token, late).await?.is_err() {
                return Ok(false);
            }
        }
        Err(changed_too_often())
    }

    /// Changes a session, even if the caller is dropped. `false` if it is not live or a condition does not hold.
    async fn change_session(
        &self,
        user_id: &Arc<str>,
        session: TokenId,
        change: SessionChange,
        event: Option<Change>,
    ) -> Result<bool, Error> {
        let sessions = self.sessions();
        let work = sessions
            .clone()
            .change(Arc::clone(user_id), session, change, event);
        let changing =
            sessions.run_to_completion("update", Arc::clone(user_id), Some(session), work);
        changing.await
    }
}
