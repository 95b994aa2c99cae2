//! Every kind of store, so that one test can run on all of them, and what such tests share.

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
pub use tower_bearer_session::{MemoryStore as Memory, test_util::conformance::helpers::*};
use tower_bearer_session::{
    RedisStore, RedisStoreBuilder, TokenManager, TokenManagerBuilder, test_util,
};

pub use self::{
    mysql::MySql,
    near::{Near, NearPerKey},
    rechecked::{Recheck, Rechecked},
    remote::{Cluster, Sentinel, Tls},
};
use test_harness::{Flavor, RedisServer};

mod mysql;
mod near;
mod rechecked;
mod remote;

/// Makes tests of functions that take `&impl Backend`: one per function and kind of store.
///
/// No test sees what is another's. Their paths tell the kind: `races::valkey::…`.
#[macro_export]
macro_rules! on_every_store {
    ($($case:ident),* $(,)?) => {
        $crate::stores::on_every_store!($($case),*; servers:);
    };
    // The last ones take `&impl Server`.
    ($($case:ident),*; servers: $($server_case:ident),* $(,)?) => {
        mod memory {
            $crate::stores::cases!(Memory: $($case),*);
        }
        mod tls {
            $crate::stores::cases!(Tls: $($case),*);
        }
        mod mysql {
            $crate::stores::cases!(MySql: $($case),*);
        }
        mod near {
            $crate::stores::cases!(Near: $($case),*);
        }
        mod sentinel {
            $crate::stores::cases!(Sentinel: $($case),*);
        }
        mod cluster {
            $crate::stores::cases!(Cluster: $($case),*);
        }
        $crate::stores::on_every_server!($($case,)* $($server_case),*);
    };
}

/// The same for what only a server can show; the functions take `&impl Server`.
#[macro_export]
macro_rules! on_every_server {
    ($($case:ident),* $(,)?) => {
        mod redis {
            $crate::stores::cases!(Redis: $($case),*);
        }
        mod valkey {
            $crate::stores::cases!(Valkey: $($case),*);
        }
    };
}

#[macro_export]
macro_rules! cases {
    ($backend:ident: $($case:ident),*) => {
        use $crate::stores::{$backend, Backend};

        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                super::$case(&$backend::start().await).await;
            }
        )*
    };
}

pub use crate::{cases, on_every_server, on_every_store};

/// Somewhere to keep sessions, which is there until this is dropped; each store has a connection of its own, if
/// there are connections.
pub trait Backend: test_util::Backend<Store: Clone + fmt::Debug> + Sized {
    /// A new and empty one.
    async fn start() -> Self;

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
pub trait Server: Backend<Store = RedisStore> {
    fn server(&self) -> &RedisServer;
}

impl Backend for Memory {
    async fn start() -> Self {
        Self::new()
    }
}

pub struct Redis(RedisServer);

impl Backend for Redis {
    async fn start() -> Self {
        Self(RedisServer::start(Flavor::Redis).await)
    }
}

impl test_util::Backend for Redis {
    type Store = RedisStore;

    async fn store(&self) -> RedisStore {
        connect(RedisStore::builder(self.0.url())).await
    }
}

impl Server for Redis {
    fn server(&self) -> &RedisServer {
        &self.0
    }
}

pub struct Valkey(RedisServer);

impl Backend for Valkey {
    async fn start() -> Self {
        Self(RedisServer::start(Flavor::Valkey).await)
    }
}

impl test_util::Backend for Valkey {
    type Store = RedisStore;

    async fn store(&self) -> RedisStore {
        connect(RedisStore::builder(self.0.url())).await
    }
}

impl Server for Valkey {
    fn server(&self) -> &RedisServer {
        &self.0
    }
}

/// A busy machine must not look like an outage.
const LONG_TIMEOUT: Duration = Duration::from_secs(20);

/// A store that gives up late.
async fn connect(builder: RedisStoreBuilder) -> RedisStore {
    patient(builder).connect().await.unwrap()
}

/// The same with connections that stay: replacing one takes commands, which some tests count.
pub fn patient(builder: RedisStoreBuilder) -> RedisStoreBuilder {
    let builder = builder.connect_timeout(LONG_TIMEOUT).deadline(LONG_TIMEOUT);
    builder.max_connection_age(Duration::from_secs(3600))
}

/// How often the server ran each command while this future did, but for what it takes to ask.
pub async fn commands_of<T>(
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

/// A well-formed token of this user that nobody minted, the `n`th.
pub fn forged(user_id: &str, n: u128) -> String {
    let mut secret = [0xA5; 32];
    secret[..16].copy_from_slice(&n.to_be_bytes());
    format!(
        "tbs1.{}.{}",
        BASE64URL.encode(user_id),
        BASE64URL.encode(secret)
    )
}
