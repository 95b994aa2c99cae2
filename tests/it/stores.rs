//! Every kind of store, so that one test can run on all of them, and what such tests share.

use std::{collections::BTreeMap, fmt, num::NonZeroU32, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use tower_bearer_session::{
    MemoryStore, OnFull, RedisStore, RedisStoreBuilder, SessionStore, TokenId, TokenManager,
    TokenManagerBuilder,
    store::{Checked, NewSession, SessionLimit, SessionRecord},
};

pub(crate) use self::remote::{Cluster, Sentinel, Tls};
use crate::harness::{Flavor, RedisServer};

mod remote;

/// Makes tests of functions that take `&impl Backend`: one per function and kind of store.
///
/// No test sees what is another's. Their paths tell the kind: `races::valkey::…`.
macro_rules! on_every_store {
    ($($case:ident),* $(,)?) => {
        crate::stores::on_every_store!($($case),*; servers:);
    };
    // The last ones take `&impl Server`.
    ($($case:ident),*; servers: $($server_case:ident),* $(,)?) => {
        mod memory {
            crate::stores::cases!(Memory: $($case),*);
        }
        mod tls {
            crate::stores::cases!(Tls: $($case),*);
        }
        mod sentinel {
            crate::stores::cases!(Sentinel: $($case),*);
        }
        mod cluster {
            crate::stores::cases!(Cluster: $($case),*);
        }
        crate::stores::on_every_server!($($case,)* $($server_case),*);
    };
}

/// The same for what only a server can show; the functions take `&impl Server`.
macro_rules! on_every_server {
    ($($case:ident),* $(,)?) => {
        mod redis {
            crate::stores::cases!(Redis: $($case),*);
        }
        mod valkey {
            crate::stores::cases!(Valkey: $($case),*);
        }
    };
}

macro_rules! cases {
    ($backend:ident: $($case:ident),*) => {
        use crate::stores::{$backend, Backend};

        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                super::$case(&$backend::start().await).await;
            }
        )*
    };
}

pub(crate) use {cases, on_every_server, on_every_store};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long something lives that is to expire within the test.
///
/// Tests say what is so *after* it, never what is so before: the machine may be busy.
pub(crate) const SHORT: Duration = Duration::from_millis(40);

/// Somewhere to keep sessions, which is there until this is dropped.
pub(crate) trait Backend: Sized {
    type Store: SessionStore + Clone + fmt::Debug;

    /// A new and empty one.
    async fn start() -> Self;

    /// A store on it; each has a connection of its own, if there are connections.
    async fn store(&self) -> Self::Store;

    /// A manager with a store of its own.
    async fn manager(&self) -> TokenManager {
        TokenManager::new(self.store().await)
    }

    /// The same, to be configured.
    async fn manager_builder(&self) -> TokenManagerBuilder {
        TokenManager::builder(self.store().await)
    }
}

/// A backend that is a server process.
pub(crate) trait Server: Backend<Store = RedisStore> {
    fn server(&self) -> &RedisServer;
}

pub(crate) struct Memory(MemoryStore);

impl Backend for Memory {
    type Store = MemoryStore;

    async fn start() -> Self {
        Self(MemoryStore::new())
    }

    async fn store(&self) -> MemoryStore {
        self.0.clone()
    }
}

pub(crate) struct Redis(RedisServer);

impl Backend for Redis {
    type Store = RedisStore;

    async fn start() -> Self {
        Self(RedisServer::start(Flavor::Redis).await)
    }

    async fn store(&self) -> RedisStore {
        connect(RedisStore::builder(self.0.url())).await
    }
}

impl Server for Redis {
    fn server(&self) -> &RedisServer {
        &self.0
    }
}

pub(crate) struct Valkey(RedisServer);

impl Backend for Valkey {
    type Store = RedisStore;

    async fn start() -> Self {
        Self(RedisServer::start(Flavor::Valkey).await)
    }

    async fn store(&self) -> RedisStore {
        connect(RedisStore::builder(self.0.url())).await
    }
}

impl Server for Valkey {
    fn server(&self) -> &RedisServer {
        &self.0
    }
}

/// A store that gives up late: a busy machine must not look like an outage.
async fn connect(builder: RedisStoreBuilder) -> RedisStore {
    patient(builder).connect().await.unwrap()
}

pub(crate) fn patient(builder: RedisStoreBuilder) -> RedisStoreBuilder {
    let patience = Duration::from_secs(20);
    builder.connect_timeout(patience).deadline(patience)
}

/// How often the server ran each command while this future did, but for what it takes to ask.
pub(crate) async fn commands_of<T>(
    server: &RedisServer,
    work: impl Future<Output = T>,
) -> (BTreeMap<String, u64>, T) {
    let before = server.command_calls().await;
    let done = work.await;
    let mut calls = server.command_calls().await;
    for (name, count) in &mut calls {
        *count -= before.get(name).unwrap_or(&0);
    }
    let asking = ["auth", "client|setinfo", "hello", "info"];
    calls.retain(|name, count| *count > 0 && !asking.contains(&name.as_str()));
    (calls, done)
}

/// The `n`th token id.
pub(crate) fn token_id(n: u128) -> TokenId {
    BASE64URL.encode(n.to_be_bytes()).parse().unwrap()
}

/// A well-formed token of this user that nobody minted, the `n`th.
pub(crate) fn forged(user_id: &str, n: u128) -> String {
    let mut secret = [0xA5; 32];
    secret[..16].copy_from_slice(&n.to_be_bytes());
    format!(
        "tbs1.{}.{}",
        BASE64URL.encode(user_id),
        BASE64URL.encode(secret)
    )
}

/// A session without anything special.
pub(crate) fn session(ttl: Duration) -> NewSession {
    NewSession::new(ttl)
}

pub(crate) fn limit(max: u32, on_full: OnFull) -> Option<SessionLimit> {
    let max = NonZeroU32::new(max).unwrap();
    Some(SessionLimit::new(max, on_full))
}

/// Starts a session that lives for an hour, without a limit.
pub(crate) async fn log_in(
    store: &impl SessionStore,
    user_id: &str,
    token_id: &TokenId,
) -> SessionRecord {
    let created = store.create(user_id, token_id, &session(HOUR), None).await;
    created.unwrap().session
}

/// Starts these sessions, one after the other, so that no two began in the same millisecond.
pub(crate) async fn log_in_apart(store: &impl SessionStore, user_id: &str, token_ids: &[TokenId]) {
    for token_id in token_ids {
        log_in(store, user_id, token_id).await;
        tick().await;
    }
}

/// Checks a session that must be live.
pub(crate) async fn live(store: &impl SessionStore, user_id: &str, token_id: &TokenId) -> Checked {
    let checked = store.check(user_id, token_id).await.unwrap();
    checked.unwrap_or_else(|| panic!("{token_id} of {user_id:?} is not live"))
}

pub(crate) async fn is_live(store: &impl SessionStore, user_id: &str, token_id: &TokenId) -> bool {
    store.check(user_id, token_id).await.unwrap().is_some()
}

/// The ids of the sessions that a list has.
pub(crate) async fn listed(store: &impl SessionStore, user_id: &str) -> Vec<TokenId> {
    let sessions = store.list(user_id).await.unwrap();
    sessions.into_iter().map(|(id, _)| id).collect()
}

/// Lets the store's clock, which counts milliseconds, go on.
pub(crate) async fn tick() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

/// Sleeps until what lives [`SHORT`] is dead.
pub(crate) async fn outlive_short() {
    tokio::time::sleep(SHORT + Duration::from_millis(10)).await;
}
