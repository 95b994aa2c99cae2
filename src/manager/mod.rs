//! [`TokenManager`]: issues, checks, refreshes and revokes tokens.

use std::{fmt, sync::Arc, time::Duration};

pub use self::{
    builder::TokenManagerBuilder,
    event::{Event, EventKind},
    loader::LoadUser,
    options::TokenOptions,
    replacement::{ReplaceOptions, Replacement},
    types::{IssuedToken, RefreshedUsers, TokenInfo},
};
use self::{
    check::accept, decoded_users::DecodedUsers, ended::Watches, format::Format, load::SingleFlight,
    login::Login, renew::Renewals, sessions::Sessions, types::check_ttl, undo::Undos,
};
pub(crate) use self::{
    check::{Authenticated, Late, Verdict},
    event::EventContext,
    renew::RenewalPolicy,
    state::SessionState,
    users::AuthOutcome,
};
use crate::{
    Error, ErrorKind, RefusalReason, SessionStore, Token, TokenId, User,
    store::SessionLimit,
    token::{TokenIds, check_user_id},
};

mod admin;
mod background;
mod builder;
mod change;
mod check;
mod context;
mod decoded_users;
mod ended;
mod event;
mod flight;
mod format;
mod limit;
mod listener;
mod load;
mod loader;
mod login;
pub(crate) mod metadata;
mod observe;
mod options;
mod renew;
mod replace;
mod replacement;
mod rotate;
mod sessions;
mod slot;
mod state;
#[cfg(feature = "tracing")]
mod trace;
mod types;
mod undo;
mod users;

/// Issues, checks, refreshes, lists and revokes tokens, and caches their users.
///
/// `D` is the application's own type for the detail of a user, which the store keeps as JSON. Cloning a manager is
/// cheap. It must be used inside a tokio runtime.
///
/// These rules apply to all methods:
///
/// - A token is passed as the text that the client sent. A malformed token makes no store call, and gives the same
///   result as an unknown or expired one: `Ok(None)` or `Ok(false)`. An `Err` is always a fault and never a statement
///   about the token.
/// - A user id that is empty or longer than 255 bytes is
///   [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
/// - A duration is rounded up to milliseconds. Zero, and more than [`MAX_TTL`](crate::store::MAX_TTL), are
///   `InvalidInput`. Where a duration is optional, `None` stands for the builder's default.
///
/// # Dropped calls
///
/// A refresh, another change of a session (its metadata, its authentication) or a logout whose future is dropped is
/// still completed, if the store was asked, and reported to [`on_event`](TokenManagerBuilder::on_event). A login whose
/// future is dropped is [undone](Self::set_token). The tokio runtime of the caller does this in the background, until
/// it shuts down. Such a call is abandoned if the store has not answered 60 seconds after the future was dropped; an
/// abandoned call is reported as a failure, and an abandoned login is undone.
///
/// ```
/// use std::time::Duration;
/// use tower_bearer_session::{MemoryStore, TokenManager};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer_session::Error> {
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Profile {
///     name: String,
/// }
///
/// let manager = TokenManager::builder(MemoryStore::new())
///     .load_user(async |id: String| Ok::<_, std::io::Error>(Some(Profile { name: format!("user {id}") })))
///     .build()?;
///
/// let token = manager.set_token("42", Duration::from_secs(3600)).await?;
/// let user = manager.check_token_or_update_user(token.expose_secret(), None).await?.unwrap();
/// assert_eq!(user.id(), "42");
/// assert_eq!(user.detail().unwrap().name, "user 42");
///
/// manager.delete_user_tokens("42").await?;
/// assert!(manager.check_token(token.expose_secret()).await?.is_none());
/// # Ok(()) }
/// ```
#[doc(alias = "TokenManage")]
pub struct TokenManager<D = serde_json::Value> {
    inner: Arc<Inner<D>>,
    /// The context of the events that this handle causes.
    context: Option<Arc<EventContext>>,
}

struct Inner<D> {
    sessions: Sessions,
    format: Format,
    loads: Option<SingleFlight<D>>,
    details: DecodedUsers<D>,
    token_ttl: Duration,
    max_lifetime: Option<Duration>,
    user_ttl: Duration,
    limit: Option<SessionLimit>,
    revocation_poll: Duration,
    renewals: Renewals,
    undos: Arc<Undos>,
    watches: Watches,
}

impl TokenManager {
    /// Creates a manager with the defaults: a time to live of 7 days, no session limit, and no user loader.
    pub fn new(store: impl SessionStore) -> Self {
        let manager = Self::builder(store).build();
        manager.expect("the defaults of the builder are valid")
    }

    /// Configures a manager. The builder's [`load_user`](TokenManagerBuilder::load_user) determines `D`.
    pub fn builder(store: impl SessionStore) -> TokenManagerBuilder {
        TokenManagerBuilder::new(store)
    }
}

/// Tokens.
impl<D> TokenManager<D> {
    /// Starts a session of this user and issues its token.
    ///
    /// A login is undone in the background if its token does not reach the caller, so that the session neither counts
    /// towards the [limit](TokenManagerBuilder::session_limit) nor stays in lists: when the future is dropped before it
    /// is ready (a client disconnected, or an outer timeout elapsed), and after a fault that leaves open whether the
    /// store has started the session. After such a fault the session is deleted at once, and once more after 5 to 10
    /// seconds. An undo makes at most five attempts while the store fails. An attempt lasts until the store's own time
    /// limit at most, and 60 seconds at a store that has none, and each attempt that fails is reported as a failed
    /// `delete`. A manager undoes at most 1,024 logins that have started a session at the same time, and 1,024 of which
    /// this is unknown; one more is not undone, and is reported as a failed `delete`. All users share these numbers,
    /// and so do [replacements](Self::replace_token): limit the rate of logins of each account.
    ///
    /// Sessions that an undone login has evicted stay ended.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SessionLimit`](crate::ErrorKind::SessionLimit) if the user is at the limit and the manager uses
    /// [`OnFull::Reject`](crate::OnFull::Reject), [`ErrorKind::Random`](crate::ErrorKind::Random) if the operating
    /// system has no random bytes, and faults.
    pub async fn set_token(
        &self,
        user_id: &str,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<Token, Error> {
        let options = TokenOptions {
            ttl: ttl.into(),
            ..TokenOptions::new()
        };
        Ok(self.set_token_with(user_id, options).await?.token)
    }

    /// Starts a session like [`set_token`](Self::set_token), with all options.
    ///
    /// Returns the token, its times, and the sessions that were evicted to keep the
    /// [limit](TokenManagerBuilder::session_limit).
    ///
    /// # Errors
    ///
    /// Those of [`set_token`](Self::set_token), and [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for
    /// metadata, scopes or a limit that cannot be. With JWTs (feature `jwt`), those of `JwtConfig::claims`.
    pub async fn set_token_with(
        &self,
        user_id: &str,
        options: TokenOptions,
    ) -> Result<IssuedToken, Error> {
        let (mut new, limit) = self.new_session(&options)?;
        let token = self.inner.format.mint(user_id, &mut new)?;
        let login = Login {
            sessions: self.sessions(),
            undos: Arc::clone(&self.inner.undos),
            user_id: user_id.into(),
            token_id: token.ids().session,
        };
        let logging_in = login.run(new, limit);
        let created = logging_in.await.inspect_err(|error| {
            if error.kind() == ErrorKind::SessionLimit {
                self.refused(Some((user_id, None)), RefusalReason::SessionLimit, None);
            }
        })?;
        Ok(IssuedToken {
            token,
            issued_at: created.session.created_at,
            expires_at: created.session.expires_at,
            ends_at: created.session.ends_at,
            evicted: created.evicted.into_iter().map(TokenInfo::new).collect(),
        })
    }

    /// Checks a token without loading the user: the returned [`User`] has no [`detail`](User::detail).
    ///
    /// A check takes one round trip and writes nothing, except that a [replaced](Self::replace_token) token past its
    /// grace ends its session.
    pub async fn check_token(&self, token: &str) -> Result<Option<User<D>>, Error> {
        let Some(token) = self.parse(token) else {
            return Ok(None);
        };
        let checked = self.look_up_token(&token).wait().await?;
        let checking = self.authenticated(&token, None, checked, Late::IsReuse);
        Ok(checking.await?.ok().map(|authenticated| authenticated.user))
    }

    /// Sets the expiry of a live token to `ttl` from now, but never past its
    /// [`max_lifetime`](TokenOptions::max_lifetime).
    ///
    /// Returns `false` if the token is not live: a refresh never revives a session.
    pub async fn refresh_token(
        &self,
        token: &str,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<bool, Error> {
        let ttl = self.token_ttl(ttl)?;
        match self.parse(token) {
            Some(token) => self.refresh_session(&token, None, ttl, Late::IsReuse).await,
            None => Ok(false),
        }
    }

    /// Ends the session of a token, everywhere at once.
    ///
    /// Any token of the session will do, even one that was [replaced](Self::replace_token); for one that has replaced
    /// another, the call takes two round trips.
    ///
    /// Returns `true` if the session was live, or if the store cannot tell because its first reply was lost. The call
    /// can be repeated safely, and is [completed](Self#dropped-calls) even if its future is dropped.
    pub async fn delete_token(&self, token: &str) -> Result<bool, Error> {
        let Some(token) = self.parse(token) else {
            return Ok(false);
        };
        let TokenIds { session, token: id } = token.ids;
        let mut metadata = None;
        // Whoever has the first token knows a secret of the session. Others only name the session, which is no secret.
        if id != session {
            let checked = self.look_up_token(&token).wait().await?;
            match accept(token.ids, checked) {
                Ok(checked) => metadata = Some(checked.session.metadata()),
                Err(refused) => {
                    let reason = self.refuse(&token, refused).await?;
                    return Ok(reason == RefusalReason::Reused);
                }
            }
        }
        self.delete_session(token.user_id, session, metadata).await
    }

    /// Lists the live sessions of a user, oldest first, by their public handles.
    pub async fn list_user_tokens(&self, user_id: &str) -> Result<Vec<TokenInfo>, Error> {
        check_user_id(user_id)?;
        let sessions = self.inner.sessions.store.list(user_id).await?;
        Ok(sessions.into_iter().map(TokenInfo::new).collect())
    }

    /// Ends one session of a user by its public handle.
    ///
    /// Returns `true` if the session was live, or if the store cannot tell because its first reply was lost. The call
    /// can be repeated safely.
    pub async fn delete_user_token(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Result<bool, Error> {
        check_user_id(user_id)?;
        self.delete_session(user_id.into(), *token_id, None).await
    }

    /// Ends all sessions of a user except one, in one atomic step, like
    /// [`delete_user_tokens`](Self::delete_user_tokens).
    pub async fn delete_other_user_tokens(
        &self,
        user_id: &str,
        keep: &TokenId,
    ) -> Result<u64, Error> {
        self.delete_all_but(user_id, Some(keep)).await
    }

    /// Ends all sessions of a user, everywhere at once, in one atomic step.
    ///
    /// Afterwards no token that was issued before is live, whatever checks, refreshes and logins were in flight.
    /// Returns how many sessions were removed, which may include some that had already expired.
    pub async fn delete_user_tokens(&self, user_id: &str) -> Result<u64, Error> {
        self.delete_all_but(user_id, None).await
    }

    /// Tells whether the store can serve requests now, for readiness probes.
    ///
    /// It takes at most one round trip to each server and writes nothing.
    ///
    /// # Errors
    ///
    /// Faults, and [`ErrorKind::Config`](crate::ErrorKind::Config) from a store that is not set up, such as a MySQL
    /// database without the tables.
    pub async fn ping(&self) -> Result<(), Error> {
        self.inner.sessions.store.ping().await
    }

    /// The time to live that a caller asked for, checked.
    pub(crate) fn token_ttl(&self, ttl: impl Into<Option<Duration>>) -> Result<Duration, Error> {
        check_ttl(ttl.into().unwrap_or(self.inner.token_ttl))
    }
}

impl<D> Clone for TokenManager<D> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            context: self.context.clone(),
        }
    }
}

impl<D> fmt::Debug for TokenManager<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenManager")
            .field("token_ttl", &self.inner.token_ttl)
            .field("user_ttl", &self.inner.user_ttl)
            .field("limit", &self.inner.limit)
            .field("load_user", &self.inner.loads.is_some())
            .finish_non_exhaustive()
    }
}
