//! Changes of a session by its token: a refresh, and another token.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::runtime::Handle;

use super::{
    Event, IssuedToken, TokenManager,
    background::spawn,
    check::{Late, accept},
    replacement::{ReplaceOptions, Replacement},
    sessions::{Change, Done, Sessions},
    undo::{Fate, Undo, UndoOnDrop, Undos, until_undone},
};
use crate::{
    Error, ErrorKind, TokenId,
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
    /// refreshed nor replaced again. **If a request presents it after that, the session is ended**, and
    /// [reported](crate::Event::Reused): of the two who have had the token, one has stolen it, and it is not known which
    /// (RFC 9700 §4.14.2). A session keeps its first token and the 16 latest replaced ones; any other is refused as
    /// unknown.
    ///
    /// Replace the token when the privileges of the user change, after a re-authentication
    /// ([`authenticated`](ReplaceOptions::authenticated)) and after a change of the password
    /// ([`end_others`](ReplaceOptions::end_others)), or regularly. It takes two round trips.
    ///
    /// A replacement is undone in the background, as a [login](Self::set_token) is, if the new token does not reach the
    /// caller: when the future is dropped before it is ready, and after a fault that leaves open whether the store has
    /// done it. The token is then the current one again. (A response that is lost on its way to the client cannot be
    /// noticed: that client has to log in again after the grace.) Other sessions that it has ended stay ended.
    ///
    /// ```
    /// # use tower_bearer_session::{Error, MemoryStore, ReplaceOptions, Replacement, TokenManager};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
    /// # let manager: TokenManager = TokenManager::new(MemoryStore::new());
    /// # let token = manager.set_token("alice", None).await?;
    /// // After a change of the password.
    /// let options = ReplaceOptions::new().authenticated().end_others();
    /// match manager.replace_token(token.expose_secret(), options).await? {
    ///     Replacement::Replaced { issued, .. } => { /* send issued.token to the client */ }
    ///     Replacement::AlreadyReplaced => { /* 409: another request of the client has the new token */ }
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
    /// tokens, and faults.
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
        match accept(token.ids, checked) {
            Ok(checked) => {
                let times = (checked.now, checked.session.ends_at);
                self.replace(&token, times, change, Late::IsReuse).await
            }
            Err(reason) => {
                self.refuse(&token, reason).await?;
                Ok(Replacement::refused(reason))
            }
        }
    }

    /// Refreshes the session of a token that is its current one.
    pub(crate) async fn refresh_session(
        &self,
        token: &ParsedToken,
        ttl: Duration,
        late: Late,
    ) -> Result<bool, Error> {
        let change = SessionChange {
            if_token: Some(token.ids.token),
            ..SessionChange::refresh(ttl)
        };
        let (sessions, user_id) = (&self.inner.sessions, Arc::clone(&token.user_id));
        let session = token.ids.session;
        let work = sessions
            .clone()
            .refresh(Arc::clone(&user_id), session, change);
        let refreshing = sessions.run_to_completion("update", user_id, Some(session), work);
        let refreshed = refreshing.await?.is_some();
        if !refreshed {
            self.refuse_change(token, late).await?;
        }
        Ok(refreshed)
    }

    /// Replaces the token of a session that was checked at `issued_at` and ends at `ends_at`. `late` tells what it means
    /// if the token is past its grace.
    pub(crate) async fn replace(
        &self,
        token: &ParsedToken,
        (issued_at, ends_at): (SystemTime, Option<SystemTime>),
        (mut change, grace): (SessionChange, Duration),
        late: Late,
    ) -> Result<Replacement, Error> {
        let ids = token.ids;
        let format = &self.inner.format;
        let new = format.mint_another(&token.user_id, &ids.session, ends_at)?;
        change.if_token = Some(ids.token);
        change.new_token = Some(NewToken::new(new.ids().token, grace));
        let (sessions, user_id) = (&self.inner.sessions, Arc::clone(&token.user_id));
        let rotate = Rotate {
            sessions: sessions.clone(),
            undos: Arc::clone(&self.inner.undos),
            user_id: Arc::clone(&user_id),
            ids,
            new: new.ids().token,
        };
        let work = rotate.run(change);
        let replacing = sessions.run_to_completion("update", user_id, Some(ids.session), work);
        match replacing.await? {
            Some(unclaimed) => {
                let updated = unclaimed.claim();
                let issued = IssuedToken {
                    token: new,
                    issued_at,
                    expires_at: updated.expires_at,
                    ends_at,
                    evicted: Vec::new(),
                };
                Ok(Replacement::Replaced {
                    issued,
                    ended: updated.ended,
                })
            }
            None => {
                let reason = self.refuse_change(token, late).await?;
                Ok(Replacement::refused(reason))
            }
        }
    }
}

/// A replacement of the token of a session by `new`.
#[derive(Clone)]
struct Rotate {
    sessions: Sessions,
    undos: Arc<Undos>,
    user_id: Arc<str>,
    ids: TokenIds,
    new: TokenId,
}

impl Rotate {
    /// Replaces the token. `None` if the session is not live or the token is not its current one. If the outcome is
    /// unknown because of a fault, a panic or an abandoned call, the replacement is undone in the background.
    async fn run(self, change: SessionChange) -> Result<Option<Unclaimed>, Error> {
        let mut undo = UndoOnDrop::new(self);
        let Rotate {
            sessions,
            user_id,
            ids,
            ..
        } = &undo.write;
        match sessions.store.update(user_id, &ids.session, &change).await {
            Ok(Some(updated)) => {
                let ended = Change::LoggedOutAll {
                    kept: Some(ids.session),
                    sessions: updated.ended,
                };
                let ended = change
                    .end_others
                    .then(|| sessions.done(Arc::clone(user_id), ended));
                undo.fate = Fate::Done;
                Ok(Some(Unclaimed {
                    undo,
                    _ended: ended,
                    updated,
                }))
            }
            Ok(None) => {
                undo.fate = Fate::Settled;
                Ok(None)
            }
            Err(error) => {
                undo.failed(&error);
                Err(error)
            }
        }
    }
}

impl Undo for Rotate {
    /// Makes the replaced token the current one again: nobody has the new one.
    fn undo(self, runtime: &Handle, is_done: bool) {
        let failed = {
            let (sessions, user_id) = (self.sessions.clone(), Arc::clone(&self.user_id));
            let session = self.ids.session;
            move |error: &Error| {
                let listener = &sessions.listener;
                listener.failed("update", Some(&user_id), Some(&session), error);
            }
        };
        let Some(permit) = self.undos.permit(is_done) else {
            let message = "a replacement is not undone: too many others are being undone";
            failed(&Error::new(ErrorKind::Unavailable, message));
            return;
        };
        let change = SessionChange {
            if_token: Some(self.new),
            new_token: Some(NewToken::new(self.ids.token, Duration::ZERO)),
            ..SessionChange::default()
        };
        spawn(runtime, async move {
            let _permit = permit;
            let store = &self.sessions.store;
            let undo = || store.update(&self.user_id, &self.ids.session, &change);
            until_undone(undo, failed).await;
        });
    }
}

/// A replacement whose new token its caller has not claimed yet.
///
/// The order of the fields is that of their drop: the undo begins before the hook hears of the sessions that have ended,
/// because it may panic.
struct Unclaimed {
    undo: UndoOnDrop<Rotate>,
    _ended: Option<Done>,
    updated: Updated,
}

impl Unclaimed {
    fn claim(mut self) -> Updated {
        let Rotate {
            sessions,
            user_id,
            ids,
            ..
        } = &self.undo.write;
        sessions.listener.tell(&Event::Replaced {
            user_id,
            token_id: &ids.session,
            expires_at: self.updated.expires_at,
        });
        // Only now: it is also undone if the hook panics.
        self.undo.fate = Fate::Settled;
        self.updated
    }
}
