//! Replacing the token of a session.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    TokenManager,
    check::judge,
    replacement::{ReplaceOptions, Replacement},
    sessions::{Change, Done, Sessions},
};
use crate::{
    Error,
    store::{NewToken, SessionChange, Updated},
    token::{ParsedToken, TokenIds},
};

impl<D> TokenManager<D> {
    /// Replaces a live token by a new one of the same session.
    ///
    /// The session keeps its [id](crate::TokenId), its start, its absolute end, its metadata and, unless the
    /// [options](ReplaceOptions) say otherwise, its expiry; it counts once for the
    /// [limit](super::TokenManagerBuilder::session_limit). Of any number of concurrent replacements of one token, exactly
    /// one succeeds.
    ///
    /// The replaced token can be used for its [grace](ReplaceOptions::grace), by requests in flight, but can be neither
    /// refreshed nor replaced again. **If it is presented after that, the session is ended**, and
    /// [reported](crate::Event::Reused): of the two who have had the token, one has stolen it, and it is not known which
    /// (RFC 9700 §4.14.2). A session keeps the 16 latest replaced tokens; an older one is refused as unknown.
    ///
    /// Replace the token when the privileges of the user change, after a re-authentication
    /// ([`authenticated`](ReplaceOptions::authenticated)) and after a change of the password
    /// ([`end_others`](ReplaceOptions::end_others)), or regularly. It takes two round trips.
    ///
    /// The call is [completed](Self#dropped-calls) even if its future is dropped. As with a response that is lost on its
    /// way, the client then has only the replaced token, and has to log in again after the grace.
    ///
    /// ```
    /// # use tower_bearer_session::{Error, MemoryStore, ReplaceOptions, Replacement, TokenManager};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
    /// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
    /// # let token = manager.set_token("alice", None).await?;
    /// // After a change of the password.
    /// let options = ReplaceOptions::new().authenticated().end_others();
    /// match manager.replace_token(token.expose_secret(), options).await? {
    ///     Replacement::Replaced { token, .. } => { /* send it to the client */ }
    ///     _ => { /* 401 */ }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for durations and metadata as in
    /// [`set_token_with`](Self::set_token_with), [`ErrorKind::Random`](crate::ErrorKind::Random) if the operating system
    /// has no random bytes, [`ErrorKind::Config`](crate::ErrorKind::Config) from a manager that has no key to sign
    /// tokens, and faults. After a fault, the token may have been replaced.
    pub async fn replace_token(
        &self,
        token: &str,
        options: ReplaceOptions,
    ) -> Result<Replacement, Error> {
        let change = options.into_change()?;
        let Some(token) = self.parse(token) else {
            return Ok(Replacement::NotLive);
        };
        let checked = self.look_up_token(&token).wait().await?;
        match judge(token.ids, checked) {
            Ok(checked) => self.replace(&token, checked.session.ends_at, change).await,
            Err(reason) => {
                self.refuse(&token, reason).await?;
                Ok(Replacement::refused(reason))
            }
        }
    }

    /// Replaces the token of a session that ends at `ends_at`.
    pub(crate) async fn replace(
        &self,
        token: &ParsedToken,
        ends_at: Option<SystemTime>,
        (mut change, grace): (SessionChange, Duration),
    ) -> Result<Replacement, Error> {
        let ids = token.ids;
        let format = &self.inner.format;
        let new = format.mint_another(&token.user_id, &ids.session, ends_at)?;
        change.if_token = Some(ids.token);
        change.new_token = Some(NewToken::new(new.ids().token, grace));
        let (sessions, user_id) = (&self.inner.sessions, Arc::clone(&token.user_id));
        let work = sessions.clone().replace(Arc::clone(&user_id), ids, change);
        let replacing = sessions.run_to_completion("update", user_id, Some(ids.session), work);
        match replacing.await? {
            Some((updated, _done)) => Ok(Replacement::Replaced {
                token: new,
                expires_at: updated.expires_at,
                ended: updated.ended,
            }),
            None => Ok(Replacement::refused(self.refuse_change(token).await?)),
        }
    }
}

impl Sessions {
    /// Replaces the token of a session. `None` if the session is not live or the token is not its current one.
    async fn replace(
        self,
        user_id: Arc<str>,
        ids: TokenIds,
        change: SessionChange,
    ) -> Result<Option<(Updated, [Option<Done>; 2])>, Error> {
        let updated = self.store.update(&user_id, &ids.session, &change).await?;
        Ok(updated.map(|updated| {
            let (token_id, expires_at) = (ids.session, updated.expires_at);
            let replaced = Change::Replaced {
                token_id,
                expires_at,
            };
            let others = change.end_others.then_some(Change::LoggedOutAll {
                kept: Some(token_id),
                sessions: updated.ended,
            });
            let done = [Some(replaced), others]
                .map(|change| Some(self.done(Arc::clone(&user_id), change?)));
            (updated, done)
        }))
    }
}
