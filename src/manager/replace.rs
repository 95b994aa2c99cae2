//! Another token for a session.

use std::sync::Arc;

use super::{
    IssuedToken, TokenManager,
    change::{ATTEMPTS, changed_too_often},
    check::{Late, accept},
    replacement::{ReplaceOptions, Replacement},
    rotate::{Gain, Rotate},
    state::SessionState,
};
use crate::{Error, store::NewToken, token::ParsedToken};

impl<D> TokenManager<D> {
    /// Replaces a live token by a new one of the same session.
    ///
    /// The session keeps its [id](crate::TokenId), its start, its absolute end, its metadata and, unless the
    /// [options](ReplaceOptions) say otherwise, its expiry; it counts once for the
    /// [limit](super::TokenManagerBuilder::session_limit). Of any number of concurrent replacements of one token,
    /// exactly one succeeds.
    ///
    /// The replaced token can be used for its [grace](ReplaceOptions::grace), by requests in flight, but can be neither
    /// refreshed nor replaced again. **If a request presents it after that, the session is ended**, and
    /// [reported](crate::EventKind::Reused): of the two who have had the token, one has stolen it, and it is not known
    /// which (RFC 9700 §4.14.2). A session keeps its first token and the 16 latest replaced ones; any other is refused
    /// as unknown.
    ///
    /// Replace the token when the privileges of the user change, after a re-authentication
    /// ([`authenticated`](ReplaceOptions::authenticated)) and after a change of the password
    /// ([`end_others`](ReplaceOptions::end_others)), or regularly. It takes two round trips.
    ///
    /// A replacement is undone in the background, as a [login](Self::set_token) is, if the new token does not reach the
    /// caller: when the future is dropped before it is ready, and after a fault that leaves open whether the store has
    /// done it. The token is then the current one again; but if the session has gained an authentication, metadata or
    /// scopes by the replacement, it is ended, because whoever has copied the old token must not gain them. (A response
    /// that is lost on its way to the client cannot be noticed: that client has to log in again after the grace.) Other
    /// sessions that it has ended stay ended.
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
    /// [`set_token_with`](Self::set_token_with), [`ErrorKind::Random`](crate::ErrorKind::Random) if the operating
    /// system has no random bytes, [`ErrorKind::Config`](crate::ErrorKind::Config) from a manager that has no key to
    /// sign tokens, and faults. With JWTs (feature `jwt`), those of `JwtConfig::claims`. After all but faults, the
    /// token is still the current one.
    pub async fn replace_token(
        &self,
        token: &str,
        options: ReplaceOptions,
    ) -> Result<Replacement, Error> {
        options.check()?;
        let Some(token) = self.parse(token) else {
            return Ok(Replacement::NotLive);
        };
        let checked = self.look_up_token(&token).wait().await?;
        match accept(token.ids, checked) {
            Ok(checked) => {
                let session = SessionState::of(token.ids, checked);
                let user_id = Arc::clone(&token.user_id);
                self.replace(user_id, session, &options, Late::IsReuse)
                    .await
            }
            Err(refused) => Ok(Replacement::refused(self.refuse(&token, refused).await?)),
        }
    }

    /// Replaces the token of a session. `late` tells what it means if the token is past its grace.
    pub(crate) async fn replace(
        &self,
        user_id: Arc<str>,
        mut session: SessionState,
        options: &ReplaceOptions,
        late: Late,
    ) -> Result<Replacement, Error> {
        let (ids, ends_at) = (session.ids, session.record.ends_at);
        let grace = options.checked_grace()?;
        let format = &self.inner.format;
        let sessions = self.sessions();
        for _ in 0..ATTEMPTS {
            let record = &session.record;
            let mut change = options.change(record.metadata.as_ref())?;
            // In each attempt, because the claims of a JWT depend on what the session is then.
            let new = format.mint_another(&user_id, &ids.session, record, &mut change)?;
            let change_ttl = change.ttl;
            change.if_token = Some(ids.token);
            change.new_token = Some(NewToken::new(new.ids().token, grace));
            let rotate = Rotate {
                sessions: sessions.clone(),
                undos: Arc::clone(&self.inner.undos),
                user_id: Arc::clone(&user_id),
                ids,
                new: new.ids().token,
                metadata: change
                    .metadata
                    .clone()
                    .or_else(|| record.metadata.clone())
                    .unwrap_or_default(),
                gain: Gain {
                    authenticated: change.authenticated,
                    metadata: change.metadata.is_some(),
                },
            };
            let (work, id) = (rotate.run(change), Arc::clone(&user_id));
            let replacing = sessions.run_to_completion("update", id, Some(ids.session), work);
            if let Some(unclaimed) = replacing.await? {
                let updated = unclaimed.claim();
                let expires_at = updated.expires_at;
                // The handler may have taken long since the check.
                let issued_at = match change_ttl {
                    Some(ttl) if Some(expires_at) != ends_at => expires_at - ttl,
                    _ => session.now,
                };
                let issued = IssuedToken {
                    token: new,
                    issued_at,
                    expires_at,
                    ends_at,
                    evicted: Vec::new(),
                };
                let ended = updated.ended;
                return Ok(Replacement::Replaced { issued, ended });
            }
            let token = ParsedToken {
                user_id: Arc::clone(&user_id),
                ids,
            };
            match self.why_unchanged(&token, late).await? {
                Ok(checked) => session = SessionState::of(ids, checked),
                Err(reason) => return Ok(Replacement::refused(reason)),
            }
        }
        Err(changed_too_often())
    }
}
