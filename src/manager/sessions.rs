//! What the store is asked for, and who is told of it.

use std::time::Duration;

use super::{Event, Refusal, TokenManager};
use crate::{
    Error, TokenId,
    store::SessionChange,
    token::{ParsedToken, check_user_id},
};

impl<D> TokenManager<D> {
    pub(super) async fn refresh_session(
        &self,
        user_id: &str,
        token_id: &TokenId,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let change = SessionChange::refresh(ttl);
        let refreshed = self.inner.store.update(user_id, token_id, &change).await?;
        if refreshed {
            self.tell(&Event::Refreshed { user_id, token_id });
        } else {
            self.refused(Some((user_id, Some(token_id))), Refusal::NotLive);
        }
        Ok(refreshed)
    }

    pub(super) async fn delete_session(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Result<bool, Error> {
        let deleted = self.inner.store.delete(user_id, token_id).await?;
        if deleted {
            self.tell(&Event::LoggedOut { user_id, token_id });
        }
        Ok(deleted)
    }

    pub(super) async fn delete_all_but(
        &self,
        user_id: &str,
        kept: Option<&TokenId>,
    ) -> Result<u64, Error> {
        check_user_id(user_id)?;
        let sessions = self.inner.store.delete_all(user_id, kept).await?;
        self.tell(&Event::LoggedOutAll {
            user_id,
            kept,
            sessions,
        });
        Ok(sessions)
    }

    /// Tells that a token was refused, which is nobody then.
    pub(super) fn nobody<T>(&self, token: &ParsedToken, reason: Refusal) -> Option<T> {
        self.refused(Some((&token.user_id, Some(&token.id))), reason);
        None
    }

    /// Tells of a refusal; `claim` is what the token says of itself.
    pub(crate) fn refused(&self, claim: Option<(&str, Option<&TokenId>)>, reason: Refusal) {
        let (user_id, token_id) = claim.unzip();
        self.tell(&Event::Refused {
            user_id,
            token_id: token_id.flatten(),
            reason,
        });
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        self.inner.listener.tell(event);
    }
}
