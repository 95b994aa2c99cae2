use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    Event, Inner, LoadUser, TokenManager,
    decoded_users::DecodedUsers,
    ended::Watches,
    format::Format,
    limit::session_limit,
    listener::{Hook, Listener},
    load::SingleFlight,
    loader::{ErasedLoadUser, Loader},
    observe::Observer,
    renew::Renewals,
    sessions::Sessions,
    slot::MAX_LOAD_TIME,
    types::check_ttl,
    undo::Undos,
};
use crate::{
    Error, ErrorKind, OnFull, SessionStore,
    store::{ErasedStore, InterceptedStore, MAX_VALUE_LEN},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The builder of a [`TokenManager`]; see [`TokenManager::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct TokenManagerBuilder<D = serde_json::Value> {
    store: Arc<dyn ErasedStore>,
    loader: Option<Arc<dyn ErasedLoadUser<D>>>,
    token_ttl: Duration,
    max_lifetime: Option<Duration>,
    user_ttl: Duration,
    missing_user_ttl: Duration,
    load_timeout: Duration,
    max_concurrent_loads: usize,
    max_user_size: usize,
    limit: Option<(u32, OnFull)>,
    revocation_poll: Duration,
    /// The store has a clone of this listener, so its hooks are only set when the manager is built.
    listener: Listener,
    hooks: Vec<Box<Hook>>,
    #[cfg(feature = "jwt")]
    jwt: Option<crate::jwt::JwtConfig>,
}

impl TokenManagerBuilder {
    pub(super) fn new(store: impl SessionStore) -> Self {
        let listener = Listener::default();
        let store = InterceptedStore::new(store, Observer::new(listener.clone()));
        Self {
            store: Arc::new(store),
            loader: None,
            token_ttl: 7 * DAY,
            max_lifetime: None,
            user_ttl: Duration::from_secs(10 * 60),
            missing_user_ttl: Duration::from_secs(5),
            load_timeout: Duration::from_secs(10),
            max_concurrent_loads: 100,
            max_user_size: 64 * 1024,
            limit: None,
            revocation_poll: Duration::from_secs(5),
            listener,
            hooks: Vec::new(),
            #[cfg(feature = "jwt")]
            jwt: None,
        }
    }
}

impl<D> TokenManagerBuilder<D> {
    /// Sets the time to live of tokens, unless a call sets its own. Default: 7 days.
    pub fn token_ttl(mut self, ttl: Duration) -> Self {
        self.token_ttl = ttl;
        self
    }

    /// Sets the absolute lifetime of sessions, which no refresh extends, unless a login sets its own
    /// ([`TokenOptions::max_lifetime`](super::TokenOptions::max_lifetime)). Default: none.
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = Some(lifetime);
        self
    }

    /// Sets how long a loaded user is cached, unless a call sets its own time. Default: 10 minutes.
    pub fn user_ttl(mut self, ttl: Duration) -> Self {
        self.user_ttl = ttl;
        self
    }

    /// Sets how long the absence of a user is cached. Default: 5 seconds.
    ///
    /// It protects the database from clients that still hold tokens of a deleted user.
    pub fn missing_user_ttl(mut self, ttl: Duration) -> Self {
        self.missing_user_ttl = ttl;
        self
    }

    /// Sets the user loader: an async function from the user id, or any [`LoadUser`].
    ///
    /// A closure that uses a pool clones it for each call:
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tower_bearer_session::{MemoryStore, TokenManager};
    /// # struct Pool;
    /// # impl Pool {
    /// #     async fn name(&self, id: &str) -> Result<Option<String>, std::io::Error> { Ok(Some(id.to_owned())) }
    /// # }
    ///
    /// let pool = Arc::new(Pool); // or an `sqlx::MySqlPool`, which is a handle already
    /// let manager = TokenManager::builder(MemoryStore::new())
    ///     .load_user(move |id: String| {
    ///         let pool = Arc::clone(&pool);
    ///         async move { pool.name(&id).await }
    ///     })
    ///     .build()?;
    /// # let _ = manager;
    /// # Ok::<_, tower_bearer_session::Error>(())
    /// ```
    pub fn load_user<T: 'static>(self, loader: impl LoadUser<T>) -> TokenManagerBuilder<T> {
        self.with_loader(Some(Arc::new(loader)))
    }

    /// Sets the type of the details for a manager without a loader, which reads the users that others have cached.
    pub fn user_type<T>(self) -> TokenManagerBuilder<T> {
        self.with_loader(None)
    }

    fn with_loader<T>(self, loader: Option<Arc<dyn ErasedLoadUser<T>>>) -> TokenManagerBuilder<T> {
        TokenManagerBuilder {
            store: self.store,
            loader,
            token_ttl: self.token_ttl,
            max_lifetime: self.max_lifetime,
            user_ttl: self.user_ttl,
            missing_user_ttl: self.missing_user_ttl,
            load_timeout: self.load_timeout,
            max_concurrent_loads: self.max_concurrent_loads,
            max_user_size: self.max_user_size,
            limit: self.limit,
            revocation_poll: self.revocation_poll,
            listener: self.listener,
            hooks: self.hooks,
            #[cfg(feature = "jwt")]
            jwt: self.jwt,
        }
    }

    /// Sets the timeout of a load: at most 30 seconds. Default: 10 seconds.
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.load_timeout = timeout;
        self
    }

    /// Sets how many users this manager and its clones load at the same time, at most; at least one. Default: 100.
    ///
    /// It protects the database where many users have to be loaded at once, for example because the cache is new. Other
    /// loads wait for their turn, for half of their [timeout](Self::load_timeout). A loader that hangs for some users delays
    /// no others as long as there are fewer of them.
    pub fn max_concurrent_loads(mut self, loads: usize) -> Self {
        self.max_concurrent_loads = loads;
        self
    }

    /// Sets the maximum size of a cached user, in bytes of its JSON (id and detail): at most [`MAX_VALUE_LEN`], which
    /// is 1 MiB. Default: 64 KiB.
    ///
    /// The store sends a cached user with every check, even of a forged token. If a loaded user is larger, the call
    /// fails with [`ErrorKind::Serialize`], and nothing is cached. A larger user is still used if a manager with a
    /// higher maximum has cached it.
    pub fn max_user_size(mut self, bytes: usize) -> Self {
        self.max_user_size = bytes;
        self
    }

    /// Issues and verifies JWTs in place of opaque tokens. Default: opaque tokens.
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    pub fn jwt(mut self, config: crate::jwt::JwtConfig) -> Self {
        self.jwt = Some(config);
        self
    }

    /// Sets how often [`Session::revoked`](crate::Session::revoked) checks its session, beside the checks after changes
    /// of which the store tells: after this time, or up to an eighth earlier. Default: 5 seconds.
    pub fn revocation_poll(mut self, interval: Duration) -> Self {
        self.revocation_poll = interval;
        self
    }

    /// Calls `hook` for each [`Event`] of this manager, for audit logs and metrics. Default: no hook.
    ///
    /// Several hooks are called one after the other, in the order in which they were added. A hook is called as soon as
    /// the store has done its part. It must be quick, and must not block or panic. After a panic, the other hooks are
    /// called all the same, and then the panic unwinds the task that caused the event; if that task is already
    /// unwinding, the panic is dropped, so that the process is not aborted. A login or replacement whose caller a panic
    /// keeps from its token is undone, although the other hooks were told of it. Usually the hook runs in the task that
    /// caused the event. The events of dropped calls, of background work, and [failures](crate::EventKind::Failed) come
    /// from tasks of the manager, in the caller's `tracing` span.
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    /// use tower_bearer_session::{Event, EventKind, MemoryStore, TokenManager};
    ///
    /// let refused = Arc::new(AtomicU64::new(0));
    /// let counter = Arc::clone(&refused);
    /// let manager: TokenManager = TokenManager::builder(MemoryStore::new())
    ///     .on_event(move |event: &Event<'_>| {
    ///         if let EventKind::Refused { .. } = event.kind() {
    ///             counter.fetch_add(1, Ordering::Relaxed);
    ///         }
    ///     })
    ///     .build()?;
    /// # let _ = manager;
    /// # Ok::<_, tower_bearer_session::Error>(())
    /// ```
    pub fn on_event(mut self, hook: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.push(Box::new(hook));
        self
    }

    /// Limits the live sessions of each user to `max`: 1 to [`SessionLimit::MAX`](crate::store::SessionLimit::MAX),
    /// which is 1,000. Default: no limit.
    ///
    /// The limit holds under any number of concurrent logins, across all services that set it. A login can have a
    /// [limit of its own](super::TokenOptions::session_limit).
    pub fn session_limit(mut self, max: u32, on_full: OnFull) -> Self {
        self.limit = Some((max, on_full));
        self
    }

    /// Limits each user to one live session: a login ends the previous one.
    pub fn single_mode(self) -> Self {
        self.session_limit(1, OnFull::EvictOldest)
    }

    /// Builds the manager.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if a duration is zero or longer than [`MAX_TTL`](crate::store::MAX_TTL), the load timeout
    /// is longer than 30 seconds, `max_user_size` is zero or more than [`MAX_VALUE_LEN`], the session limit is zero or
    /// larger than [`SessionLimit::MAX`](crate::store::SessionLimit::MAX), or two JWT keys have the same id and
    /// algorithm.
    pub fn build(self) -> Result<TokenManager<D>, Error> {
        let checked = |name, value| {
            let named = |error| Error::new(ErrorKind::Config, format!("{name}: {error}"));
            check_ttl(value).map_err(named)
        };
        let token_ttl = checked("token_ttl", self.token_ttl)?;
        let user_ttl = checked("user_ttl", self.user_ttl)?;
        let missing_ttl = checked("missing_user_ttl", self.missing_user_ttl)?;
        let timeout = checked("load_timeout", self.load_timeout)?;
        let revocation_poll = checked("revocation_poll", self.revocation_poll)?;
        if timeout > MAX_LOAD_TIME {
            let message = format!("load_timeout is longer than {MAX_LOAD_TIME:?}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.max_user_size > MAX_VALUE_LEN {
            let message = format!("max_user_size is more than {MAX_VALUE_LEN} bytes");
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.max_user_size == 0 {
            let message = "a max_user_size of 0 would allow no user at all";
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.max_concurrent_loads == 0 {
            let message = "max_concurrent_loads of 0 would allow no load at all";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let limit = self
            .limit
            .map(|limit| session_limit(limit, ErrorKind::Config));
        let max_lifetime = self
            .max_lifetime
            .map(|lifetime| checked("max_lifetime", lifetime));
        #[cfg(feature = "jwt")]
        let format = match self.jwt {
            Some(config) => Format::jwt(config)?,
            None => Format::Opaque,
        };
        #[cfg(not(feature = "jwt"))]
        let format = Format::Opaque;
        let listener = self.listener;
        listener.set(self.hooks);
        let loads = self.loader.map(|loader| {
            let loader = Loader {
                loader,
                timeout,
                turns: Arc::new(Semaphore::new(
                    self.max_concurrent_loads.min(Semaphore::MAX_PERMITS),
                )),
                max_user_size: self.max_user_size,
                listener: listener.clone(),
            };
            SingleFlight::new(loader, missing_ttl)
        });
        Ok(TokenManager {
            inner: Arc::new(Inner {
                format,
                details: DecodedUsers::new(),
                loads,
                sessions: Sessions {
                    store: self.store,
                    listener,
                },
                token_ttl,
                user_ttl,
                max_lifetime: max_lifetime.transpose()?,
                limit: limit.transpose()?,
                revocation_poll,
                renewals: Renewals::default(),
                undos: Arc::new(Undos::new()),
                watches: Watches::default(),
            }),
            context: None,
        })
    }
}

impl<D> fmt::Debug for TokenManagerBuilder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenManagerBuilder")
            .field("token_ttl", &self.token_ttl)
            .field("max_lifetime", &self.max_lifetime)
            .field("user_ttl", &self.user_ttl)
            .field("missing_user_ttl", &self.missing_user_ttl)
            .field("load_user", &self.loader.is_some())
            .field("load_timeout", &self.load_timeout)
            .field("max_concurrent_loads", &self.max_concurrent_loads)
            .field("max_user_size", &self.max_user_size)
            .field("session_limit", &self.limit)
            .finish_non_exhaustive()
    }
}
