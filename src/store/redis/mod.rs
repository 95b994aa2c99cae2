//! Sessions in Redis. From the ground up, each room imports from those before it:
//!
//! - `wire`: commands, replies and errors of one server;
//! - `near`: the near-cache, a table and the leases on what is in it;
//! - `conn`: supervised connections, which know no topology;
//! - `source`: finds the server to connect to, with sentinels or without;
//! - `ops`: lookups, writes and confirmations over one link;
//! - `route`: which server an operation goes to: the only one, or a node of a cluster.
//!
//! A check goes through `route`, `ops` and `conn` to `wire`. The supervisor in `conn` calls `source`, by the trait
//! `Connect`, when it connects. A new topology with one server to find belongs in `source`; one that spreads keys
//! over several servers belongs in `route`.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use redis::Pipeline;
use tokio::time::Instant;

pub use self::{
    config::RedisStoreBuilder,
    conn::health::{RedisHealth, RedisPrimary, RedisTopology},
    near::{NearCache, NearCacheHealth},
    wire::login::RedisCredentials,
};
use self::{
    conn::link::{Done, OnDrop},
    keys::Keys,
    near::Near,
    route::{client::Client, node::Lane},
    wire::{Reply, script, unexpected_reply},
};
use crate::{
    Error, ErrorKind, TokenId,
    store::{
        Checked, Created, MAX_VALUE_LEN, NewSession, OnFull, PutMode, SessionChange, SessionLimit,
        SessionRecord, SessionStore, Updated, UserCursor, UserPage,
    },
};

mod check;
mod config;
mod conn;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keys;
mod near;
mod ops;
mod prune;
mod record;
mod route;
mod source;
mod update;
mod users;
mod wire;

/// The maximum number of attempts of a login to make room, in case concurrent logins take it.
const MAX_PRUNINGS: u32 = 5;

/// Sessions in Redis or Valkey: shared by all services that use the same server and prefixes.
///
/// Works with Redis 6.2 and later, and with Valkey: with one server, with Sentinel and with Cluster. A clone is another
/// handle to the same connections.
///
/// All requests share one connection to each server, and lists another one. A connection is replaced when it breaks,
/// when its server does not answer for a second or is no longer the master, and, for a single server or a node with a
/// host name, when it reaches its [maximum age](RedisStoreBuilder::max_connection_age), because the name may lead to
/// another server (with a near-cache, only if it does). Every operation has a deadline. After a failed attempt to
/// reconnect, operations fail at once until an attempt succeeds.
///
/// All operations but logins are sent a second time if their connection drops before the answer came: a check at once,
/// a write when the first one can no longer take effect. No write takes effect after it was answered with an error, as
/// long as the server's clock goes on and is not set back.
///
/// The guide specifies the [layout](crate::guide::layout) of the keys, and tells what
/// [faults](crate::guide::production) do to requests.
///
/// ```no_run
/// # async fn f() -> Result<(), tower_bearer_session::Error> {
/// use std::time::Duration;
/// use tower_bearer_session::RedisStore;
///
/// let store = RedisStore::connect("redis://:password@localhost/0").await?;
///
/// // The master that the sentinels name.
/// let store = RedisStore::connect(
///     "redis-sentinel://:password@s1?node=s2&node=s3&sentinelServiceName=mymaster",
/// )
/// .await?;
///
/// let store = RedisStore::builder("redis://localhost")
///     .username("sessions")
///     .password("secret")
///     .token_key_prefix("shop:tokens")
///     .user_key_prefix("shop:users")
///     .deadline(Duration::from_millis(200))
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    client: Client,
    keys: Keys,
    near: Option<Arc<Near>>,
}

impl RedisStore {
    /// Connects, and waits until the server has answered.
    ///
    /// | servers | URL |
    /// |---|---|
    /// | one | `redis://[[user]:password@]host[:port][/db]` |
    /// | Sentinel | `redis-sentinel://[[user]:password@]sentinel[:port][/db]?node=sentinel[:port]&…&sentinelServiceName=mymaster`, and `sentinelUsername`, `sentinelPassword`, `sentinelTls=true` or `false` |
    /// | Cluster | `redis-cluster://[[user]:password@]node[:port]?node=node[:port]&…` |
    ///
    /// With TLS (feature `redis-tls`) the schemes are `rediss`, `rediss-sentinel` and `rediss-cluster`; `valkey` means
    /// `redis`. Special characters are percent-encoded.
    ///
    /// Must be called inside a tokio runtime, which then has to outlive the store.
    ///
    /// # Errors
    ///
    /// Those of [`RedisStoreBuilder::connect`].
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Configures a store with a URL as in [`connect`](Self::connect); the builder's methods override the URL.
    pub fn builder(url: impl AsRef<str>) -> RedisStoreBuilder {
        RedisStoreBuilder::from_url(url.as_ref())
    }

    /// Whether there is a connection, as far as is known without asking: a server that hangs may take three seconds to
    /// be noticed. Short for [`RedisHealth::is_connected`]. To ask now:
    /// [`TokenManager::ping`](crate::TokenManager::ping).
    pub fn is_connected(&self) -> bool {
        self.health().is_connected()
    }

    /// Tells scripts whether they run on a node of a cluster.
    fn cluster_arg(&self) -> &'static str {
        match self.client.is_cluster() {
            true => "cluster",
            false => "",
        }
    }

    /// What is known of the servers and the connections to them, without asking them.
    pub fn health(&self) -> RedisHealth {
        self.client.health()
    }
}

/// [`check`](SessionStore::check) is the pipeline `TIME`, `HGET`, `GET`: O(1), whatever the number of sessions. Checks
/// that run at the same time share a pipeline.
///
/// All writes are one script each, of bounded length whatever the number of sessions. Only a login that is the first
/// with a session limit, of a user who has more than about a thousand sessions, ends those in excess page by page
/// before. (While the cluster slot of a user is being moved, logging out all sessions but one reads them all.)
impl SessionStore for RedisStore {
    async fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        if let Some(limit) = limit
            && limit.max.get() > SessionLimit::MAX
        {
            let message = format!(
                "a limit of {} sessions; the largest is {}",
                limit.max,
                SessionLimit::MAX
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let on_full = match limit.map(|limit| limit.on_full) {
            None | Some(OnFull::EvictOldest) => "oldest",
            Some(OnFull::EvictLeastRecentlyRefreshed) => "refreshed",
            Some(OnFull::Reject) => "reject",
        };
        check_len(
            "the metadata of a session",
            new.metadata.as_deref().unwrap_or_default(),
        )?;
        let _changing = self.changing(user_id);
        let call = script::CREATE
            .call(self.keys.sessions(user_id))
            .arg(&*token_id.text())
            .arg(millis(new.ttl))
            .arg(new.max_lifetime.map_or(0, millis))
            .arg(new.metadata.as_deref().unwrap_or_default())
            .arg(limit.map_or(0, |limit| limit.max.get()))
            .arg(on_full);
        let mut evicted = Vec::new();
        let until = Instant::now() + self.client.pages_timeout();
        for _ in 0..MAX_PRUNINGS {
            // It is never sent twice: the first one may have been done, and undone by a logout since then.
            let created = self.client.write_until(&call, OnDrop::Fail, until);
            let reply: Vec<Vec<u8>> = created.await?.reply;
            let mut reply = reply.into_iter();
            match (reply.next().as_deref(), limit) {
                (Some(b"done"), _) => {
                    let session = reply.next().and_then(|record| record::decode(&record));
                    while let (Some(id), Some(session)) = (reply.next(), reply.next()) {
                        evicted.extend(token_id_of(&id).zip(record::decode(&session)));
                    }
                    let session = session.ok_or_else(|| unexpected_reply("create"))?;
                    return Ok(Created { session, evicted });
                }
                (Some(b"newer"), _) => return Err(Error::newer_session()),
                (Some(b"full"), _) => return Err(Error::session_limit()),
                (Some(b"crowded"), Some(limit)) => {
                    evicted.extend(self.prune(user_id, limit, until).await?);
                }
                _ => return Err(unexpected_reply("create")),
            }
        }
        let message =
            "the user has too many sessions to keep a limit: new ones, or unreadable ones";
        Err(Error::new(ErrorKind::Store, message))
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        self.ask(user_id, token_id).await
    }

    fn check_now(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Option<Result<Option<Checked>, Error>> {
        self.hit(user_id, token_id).map(|checked| Ok(Some(checked)))
    }

    async fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        let _changing = self.changing(user_id);
        self.change(user_id, token_id, change).await
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        let _changing = self.changing(user_id);
        let call = script::DELETE
            .call(self.keys.sessions(user_id))
            .arg(&*token_id.text());
        let done: Done<bool> = self.client.write(&call, OnDrop::Retry).await?;
        // If there was none, then somebody else may have ended it, just now.
        self.client.confirm(call.key(), &done.live).await?;
        Ok(done.reply || done.repeated)
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        let _changing = self.changing(user_id);
        let call = script::DELETE_ALL
            .call(self.keys.sessions(user_id))
            .arg(except.map(TokenId::text).as_deref().unwrap_or_default())
            .arg(self.cluster_arg());
        let done: Done<u64> = self.client.write(&call, OnDrop::Retry).await?;
        self.client.confirm(call.key(), &done.live).await?;
        Ok(done.reply.max(done.repeated.into()))
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let until = Instant::now() + self.client.pages_timeout();
        let mut sessions = self.scan(user_id, until).await?.into_sessions();
        sessions.sort_by_key(|(id, session)| (session.created_at, *id));
        Ok(sessions)
    }

    /// Scans the keys of the database, or of all primaries of the cluster, a thousand keys a page: a page has those of
    /// them that are users' sessions, perhaps none. It needs the rights `scan` and `info`.
    ///
    /// Fails with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the listing may not be complete: a
    /// server was restarted or replaced while it was scanned, or slots of the cluster were moved.
    async fn list_users(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        self.user_page(after).await
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        let key = self.keys.user(user_id);
        let mut commands = Pipeline::with_capacity(1);
        commands.get(&key);
        let done = self.client.query(&key, Lane::Requests, &commands).await?;
        let (value,): (Reply,) = done.reply;
        Ok(value.map(Bytes::from))
    }

    async fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        self.put_value(user_id, value, ttl, mode).await
    }

    fn changed(&self, user_id: &str) -> impl Future<Output = ()> + Send {
        self.until_changed(user_id)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.client.ping(&self.keys).await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("client", &self.client)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// A server closes the connection, with the requests of everybody, if something is too large for it.
fn check_len(what: &str, value: &[u8]) -> Result<(), Error> {
    let len = value.len();
    if len > MAX_VALUE_LEN {
        let message = format!("{what} has {len} bytes; the most is {MAX_VALUE_LEN}");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(())
}

/// Durations come in whole milliseconds, of at most a hundred years.
fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn token_id_of(field: &[u8]) -> Option<TokenId> {
    std::str::from_utf8(field).ok()?.parse().ok()
}
