use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use redis::Pipeline;
use tokio::time::timeout;

use self::{
    client::Client,
    keys::Keys,
    link::{Done, OnDrop},
    live::Live,
    lookup::Sought,
    node::Lane,
};
pub use self::{
    config::RedisStoreBuilder,
    health::{RedisHealth, RedisPrimary, RedisTopology},
};
use super::{
    Checked, Created, NewSession, OnFull, PutMode, SessionChange, SessionLimit, SessionRecord,
    SessionStore,
};
use crate::{Error, ErrorKind, TokenId};

mod client;
mod cluster;
mod config;
mod confirm;
mod dial;
mod errors;
mod health;
mod keys;
mod link;
mod live;
mod lookup;
mod node;
mod record;
mod script;
mod sentinel;
mod supervisor;
#[cfg(feature = "redis-tls")]
mod tls;
mod topology;
mod watch;

/// How many sessions a page of a list has, about.
const PAGE: usize = 512;
/// How long a whole list may take, in deadlines of one operation.
const MAX_LIST_DEADLINES: u32 = 20;

/// A string, or nil.
type Reply = Option<Vec<u8>>;
/// The answer of `TIME`: seconds and microseconds since the Unix epoch.
type Time = (u64, u64);
/// The answer of `HSCAN`: the next cursor, fields and values.
type Page = (u64, Vec<(Vec<u8>, Vec<u8>)>);

/// Sessions in Redis or Valkey: shared by all services that use the same server and prefixes.
///
/// Works with Redis 6.2 and later, and with Valkey: with one server, with Sentinel and with Cluster. Cloning gives
/// another handle on the same connection, which is one to each server for all requests (and a second for lists),
/// supervised: it is replaced when it breaks, its server does not answer for a second or is the master no more, or the
/// [address of a single server](RedisStoreBuilder::max_connection_age) may lead elsewhere by now. Every operation has a
/// deadline, and once an attempt to reconnect has failed, operations fail at once until one succeeds.
///
/// All operations but logins are sent a second time if their connection drops before the answer came.
/// Then a logout may answer that it found no session, because its first try had ended it.
///
/// The README specifies the layout of the keys, and tells what faults do to requests.
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
    /// `redis`. What is special in a part is percent-encoded.
    ///
    /// Must be called inside a tokio runtime, which then has to outlive the store.
    ///
    /// # Errors
    ///
    /// Those of [`RedisStoreBuilder::connect`].
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Configures a store; `url` is as for [`connect`](Self::connect), and the builder's methods win over
    /// what it says.
    pub fn builder(url: impl AsRef<str>) -> RedisStoreBuilder {
        RedisStoreBuilder::from_url(url.as_ref())
    }

    /// Whether there is a connection: what a readiness probe asks. Short for [`RedisHealth::is_connected`].
    pub fn is_connected(&self) -> bool {
        self.health().is_connected()
    }

    /// What is known of the servers and the connections to them; asks nobody.
    pub fn health(&self) -> RedisHealth {
        self.client.health()
    }

    /// Makes one cheap round trip to the primary, within the deadline of an operation; with a cluster, to one of its
    /// primaries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] and [`ErrorKind::Timeout`], as of any operation; [`ErrorKind::Store`] if the server
    /// refuses to read a key.
    pub async fn ping(&self) -> Result<(), Error> {
        self.client.ping(&self.keys.probe()).await
    }

    async fn list_pages(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let key = self.keys.sessions(user_id);
        // A scan may return a field more than once.
        let mut found = BTreeMap::new();
        let mut cursor = 0;
        let mut scanned: Option<Arc<Live>> = None;
        loop {
            let mut commands = Pipeline::with_capacity(2);
            commands.cmd("TIME");
            let page = commands.cmd("HSCAN");
            page.arg(&key).arg(cursor).arg("COUNT").arg(PAGE);
            let page = self.client.query_page(&key, &commands, scanned.as_ref());
            let Done { reply, live } = page.await?;
            let (now, (next, page)): (Time, Page) = reply;
            let now = time(now);
            // A cursor means nothing to another server, or to the same one restarted.
            if !Arc::ptr_eq(scanned.get_or_insert(Arc::clone(&live)), &live) {
                (cursor, scanned) = (0, None);
                continue;
            }
            for (id, session) in page {
                let session = record::decode(session).filter(|session| now < session.expires_at);
                found.extend(token_id_of(&id).zip(session));
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let mut sessions: Vec<_> = found.into_iter().collect();
        sessions.sort_by_key(|(id, session)| (session.created_at, *id));
        Ok(sessions)
    }
}

/// [`check`](SessionStore::check) is the pipeline `TIME`, `HGET`, `GET`: O(1), whatever the number of sessions. Checks
/// that run at the same time share a pipeline.
/// All writes are one command or one script each.
impl SessionStore for RedisStore {
    async fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        let on_full = match limit.map(|limit| limit.on_full) {
            None | Some(OnFull::EvictOldest) => "oldest",
            Some(OnFull::EvictLeastRecentlyRefreshed) => "refreshed",
            Some(OnFull::Reject) => "reject",
        };
        let call = script::CREATE
            .call(self.keys.sessions(user_id))
            .arg(token_id.as_str())
            .arg(millis(new.ttl))
            .arg(new.max_lifetime.map_or(0, millis))
            .arg(new.metadata.as_deref().unwrap_or_default())
            .arg(limit.map_or(0, |limit| limit.max.get()))
            .arg(on_full);
        // A login that arrives late, after a logout of the same token, would bring it back.
        let done = self.client.script(&call, OnDrop::Fail).await?;
        let Some::<Vec<Vec<u8>>>(reply) = done.reply else {
            return Err(Error::session_limit());
        };
        let mut reply = reply.into_iter();
        let session = reply.next().and_then(record::decode);
        let mut evicted = Vec::new();
        while let (Some(id), Some(session)) = (reply.next(), reply.next()) {
            evicted.extend(token_id_of(&id).zip(record::decode(session)));
        }
        let session = session.ok_or_else(|| nonsense("create"))?;
        Ok(Created { session, evicted })
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        let sought = Sought {
            sessions: &self.keys.sessions(user_id),
            token_id,
            user: &self.keys.user(user_id),
        };
        let (now, session, user) = self.client.look_up(&sought).await?;
        let now = time(now);
        let session = session.and_then(record::decode);
        Ok(session
            .filter(|session| now < session.expires_at)
            .map(|session| Checked {
                now,
                session,
                user: user.map(Bytes::from),
            }))
    }

    async fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<bool, Error> {
        let version = change.if_version.map_or([0, 0], |version| {
            [version.refreshed_at, version.expires_at].map(record::millis)
        });
        let call = script::UPDATE
            .call(self.keys.sessions(user_id))
            .arg(token_id.as_str())
            .arg(millis(change.ttl))
            .arg(&version);
        let Done { reply, live } = self.client.script(&call, OnDrop::Retry).await?;
        if reply {
            self.client.confirm(call.key(), &live).await?;
        }
        Ok(reply)
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        let key = self.keys.sessions(user_id);
        let mut commands = Pipeline::with_capacity(3);
        commands
            .hget(&key, token_id.as_str())
            .hdel(&key, token_id.as_str())
            .cmd("TIME");
        let Done { reply, live } = self.client.query(&key, Lane::Requests, &commands).await?;
        let (session, deleted, now): (Reply, bool, Time) = reply;
        // If there was none, then somebody else may have ended it, just now.
        self.client.confirm(&key, &live).await?;
        let session = session.and_then(record::decode);
        Ok(deleted && session.is_some_and(|session| time(now) < session.expires_at))
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        let call = script::DELETE_ALL
            .call(self.keys.sessions(user_id))
            .arg(except.map_or("", TokenId::as_str));
        let Done { reply, live } = self.client.script(&call, OnDrop::Retry).await?;
        self.client.confirm(call.key(), &live).await?;
        Ok(reply)
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let limit = self.client.operation_timeout() * MAX_LIST_DEADLINES;
        let pages = timeout(limit, self.list_pages(user_id));
        pages.await.unwrap_or_else(|_| {
            let message = format!("the list of sessions was not complete within {limit:?}");
            Err(Error::new(ErrorKind::Timeout, message))
        })
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
        let key = self.keys.user(user_id);
        if let PutMode::IfUnchanged(Some(seen)) = mode {
            let call = script::PUT_USER
                .call(key)
                .arg(value)
                .arg(millis(ttl))
                .arg(seen);
            return Ok(self.client.script(&call, OnDrop::Retry).await?.reply);
        }
        let mut commands = Pipeline::with_capacity(1);
        let set = commands.cmd("SET");
        set.arg(&key).arg(value).arg("PX").arg(millis(ttl));
        if mode == PutMode::IfUnchanged(None) {
            set.arg("NX");
        }
        // "OK", or nil if the condition did not hold.
        let done = self.client.query(&key, Lane::Requests, &commands).await?;
        let (written,): (Option<String>,) = done.reply;
        Ok(written.is_some())
    }

    async fn ping(&self) -> Result<(), Error> {
        let key = self.keys.probe();
        let mut commands = Pipeline::with_capacity(1);
        commands.get(&key);
        let done: Done<(Reply,)> = self.client.query(&key, Lane::Requests, &commands).await?;
        drop(done);
        Ok(())
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

/// Durations come in whole milliseconds, of at most a hundred years.
fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn time((seconds, micros): Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros)
}

fn token_id_of(field: &[u8]) -> Option<TokenId> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn nonsense(operation: &str) -> Error {
    Error::new(
        ErrorKind::Store,
        format!("Redis answered `{operation}` with something that makes no sense"),
    )
}
