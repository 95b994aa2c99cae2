use std::{collections::HashMap, panic::resume_unwind, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::JoinSet;

use super::{
    RefreshedUsers, TokenManager,
    background::spawn_in,
    check::{Authenticated, Late, Refused, Verdict, accept},
    load::SingleFlight,
    slot::{self, MARKER_TTL, Slot},
    types::check_ttl,
};
use crate::{
    Error, ErrorKind, RefusalReason, User,
    store::{BoxFuture, Checked, PutMode},
    token::{ParsedToken, check_user_id},
};

/// The maximum number of users that [`TokenManager::refresh_users`] loads concurrently.
const REFRESH_CONCURRENCY: usize = 8;

/// The outcome of authenticating a token after its store lookup.
pub(crate) enum AuthOutcome<D> {
    Known(Result<Verdict<D>, Error>),
    /// The token is live, but its user has to be loaded; or a replaced token is reused, and its session has to be
    /// ended.
    Waiting(BoxFuture<'static, Verdict<D>>),
}

/// A pending load of the user of a live token.
struct Load<D> {
    manager: TokenManager<D>,
    loads: SingleFlight<D>,
    token: ParsedToken,
    metadata: Bytes,
    /// The cached value, which was a miss.
    seen: Option<Bytes>,
    user_ttl: Duration,
}

/// Cached users.
impl<D> TokenManager<D> {
    /// Invalidates the cached user; sessions are not changed. The next check loads the user.
    ///
    /// Call it when the user's data has changed: no load that began before the call, in any process, restores old data.
    /// Repeat it after an error, or the old data may be used until it expires. A Redis whose memory is full refuses
    /// it.
    pub async fn delete_user(&self, user_id: &str) -> Result<(), Error> {
        check_user_id(user_id)?;
        let (store, marker) = (&self.inner.sessions.store, slot::marker()?);
        let put = store.put_user(user_id, &marker, MARKER_TTL, PutMode::Replace);
        put.await.map(drop)
    }
}

/// Users and their details.
impl<D: Serialize + DeserializeOwned + Send + Sync + 'static> TokenManager<D> {
    /// Checks a token and returns its user with the detail, from the cache or from the user loader.
    ///
    /// On a cache miss, the result of the [user loader](crate::TokenManagerBuilder::load_user) is cached for
    /// `user_ttl`.
    /// `None` if the token is not live, or if the loader finds no such user. Without a loader, the detail is the cached
    /// one or `None`.
    ///
    /// A cache hit makes one round trip and no write. Concurrent misses of one user share one loader call per process
    /// and the shortest of their `user_ttl`s; dropping one caller does not cancel the load for the others. A hit does
    /// not change the time to live. A cached value that does not decode as `D`, for example because a deployment
    /// changed the type, is a miss.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LoadUser`](crate::ErrorKind::LoadUser) if the loader fails,
    /// [`ErrorKind::Serialize`](crate::ErrorKind::Serialize) if its result cannot be cached, and faults of the store.
    pub async fn check_token_or_update_user(
        &self,
        token: &str,
        user_ttl: impl Into<Option<Duration>>,
    ) -> Result<Option<User<D>>, Error> {
        let user_ttl = self.user_ttl(user_ttl)?;
        let Some(token) = self.parse(token) else {
            return Ok(None);
        };
        let checked = self.look_up_token(&token).wait().await;
        let outcome = match self.authenticate(&token, checked, Some(user_ttl)) {
            AuthOutcome::Known(outcome) => outcome,
            AuthOutcome::Waiting(outcome) => outcome.await,
        };
        Ok(outcome?.ok().map(|authenticated| authenticated.user))
    }

    /// Loads a user by the loader and replaces the cached copy; `None` (and nothing cached but that) if
    /// there is no such user. If the load fails, the old copy stays; so it does if the future is dropped before it is
    /// ready.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoLoader`](crate::ErrorKind::NoLoader) without a loader,
    /// [`ErrorKind::LoadUser`](crate::ErrorKind::LoadUser) if it fails,
    /// [`ErrorKind::Serialize`](crate::ErrorKind::Serialize) if its result cannot be cached, and faults of the store.
    pub async fn add_user(
        &self,
        user_id: &str,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<Option<User<D>>, Error> {
        check_user_id(user_id)?;
        let ttl = self.user_ttl(ttl)?;
        let loads = self.inner.loads.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::NoLoader,
                "this manager has no user loader; give it one with TokenManagerBuilder::load_user",
            )
        })?;
        let detail = loads
            .replace(&*self.inner.sessions.store, user_id, ttl)
            .await?;
        Ok(detail.map(|detail| User::new(user_id.into(), Some(detail), None)))
    }

    /// Loads and caches many users with [`add_user`](Self::add_user), a few at a time.
    ///
    /// The failure of one user does not stop the others; the result lists every failure with its error. If the future
    /// is dropped, no more users are loaded.
    pub async fn refresh_users<I>(
        &self,
        user_ids: I,
        ttl: impl Into<Option<Duration>>,
    ) -> RefreshedUsers
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let ttl = ttl.into();
        let user_ids: Vec<String> = user_ids.into_iter().map(Into::into).collect();
        let mut user_ids = user_ids.into_iter();
        let mut result = RefreshedUsers::default();
        let (mut running, mut names) = (JoinSet::new(), HashMap::new());
        loop {
            for user_id in user_ids.by_ref().take(REFRESH_CONCURRENCY - running.len()) {
                let (manager, id) = (self.clone(), user_id.clone());
                let adding = async move { manager.add_user(&id, ttl).await };
                let task = spawn_in(&mut running, adding);
                names.insert(task.id(), user_id);
            }
            let Some(joined) = running.join_next_with_id().await else {
                return result;
            };
            let (task, outcome) = match joined {
                Ok((task, outcome)) => (task, outcome),
                Err(error) => match (error.id(), error.try_into_panic()) {
                    // A panic propagates to the caller.
                    (_, Ok(panic)) => resume_unwind(panic),
                    (task, Err(_)) => (task, Err(Error::load_interrupted())),
                },
            };
            let user_id = names.remove(&task).expect("every task has a name");
            result.record(user_id, outcome.map(|user| user.is_some()));
        }
    }

    /// Authenticates a token by its store lookup. A loaded user is cached for `user_ttl`; `None` means the default.
    pub(crate) fn authenticate(
        &self,
        token: &ParsedToken,
        checked: Result<Option<Checked>, Error>,
        user_ttl: Option<Duration>,
    ) -> AuthOutcome<D> {
        let checked = match checked.map(|checked| accept(token.ids, checked)) {
            Ok(Ok(checked)) => checked,
            Ok(Err(refused)) if refused.reason == RefusalReason::Reused => {
                let (manager, token) = (self.clone(), token.clone());
                return AuthOutcome::Waiting(Box::pin(async move {
                    Ok(Err(manager.refuse(&token, refused).await?))
                }));
            }
            Ok(Err(Refused { reason, metadata })) => {
                let refusal = self.report_refusal(token, reason, metadata.as_deref());
                return AuthOutcome::Known(Ok(refusal));
            }
            Err(error) => return AuthOutcome::Known(Err(error)),
        };
        let slot = match &checked.user {
            Some(value) => self.inner.details.decode(&token.user_id, value),
            None => Slot::Vacant,
        };
        AuthOutcome::Known(Ok(match slot {
            Slot::User(detail) => Ok(Authenticated::of(token, Some(detail), checked)),
            Slot::NoSuchUser => {
                let metadata = checked.session.metadata.as_deref().unwrap_or_default();
                self.report_refusal(token, RefusalReason::NoSuchUser, Some(metadata))
            }
            Slot::Vacant => match &self.inner.loads {
                None => Ok(Authenticated::of(token, None, checked)),
                Some(loads) => {
                    let load = Load {
                        manager: self.clone(),
                        loads: loads.clone(),
                        token: token.clone(),
                        metadata: checked.session.metadata(),
                        seen: checked.user.map(Bytes::from),
                        user_ttl: user_ttl.unwrap_or(self.inner.user_ttl),
                    };
                    return AuthOutcome::Waiting(Box::pin(load.run()));
                }
            },
        }))
    }

    fn user_ttl(&self, ttl: impl Into<Option<Duration>>) -> Result<Duration, Error> {
        check_ttl(ttl.into().unwrap_or(self.inner.user_ttl))
    }
}

impl<D: Serialize + DeserializeOwned + Send + Sync + 'static> Load<D> {
    async fn run(self) -> Result<Verdict<D>, Error> {
        let (manager, token) = (&self.manager, &self.token);
        let store = &manager.inner.sessions.store;
        let filling = self
            .loads
            .fill(store, &token.user_id, self.seen, self.user_ttl);
        let Some(detail) = filling.await? else {
            let metadata = Some(&*self.metadata);
            return Ok(manager.report_refusal(token, RefusalReason::NoSuchUser, metadata));
        };
        // A logout during the load must win, also where the process has an answer of its own.
        let checked = manager.ask_for_token(token).wait().await?;
        // The request presented its token before the load.
        let outcome = manager.authenticated(token, Some(detail), checked, Late::IsRefused);
        outcome.await
    }
}
