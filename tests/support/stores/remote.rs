//! [`RedisStore`] on what is not one plain server.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Mutex;
use tower_bearer_session::{RedisStore, test_util};

use super::{Backend, connect};
use test_harness::{self as harness, Flavor, Pki, RedisServer, SentinelSet};

/// One server, over TLS.
pub struct Tls {
    server: RedisServer,
    pki: Pki,
}

impl Backend for Tls {
    async fn start() -> Self {
        let pki = Pki::new();
        let server = RedisServer::start_tls(&pki, &[]).await;
        Self { server, pki }
    }
}

impl test_util::Backend for Tls {
    type Store = RedisStore;

    async fn store(&self) -> RedisStore {
        connect(RedisStore::builder(self.server.url()).tls_roots(self.pki.ca())).await
    }
}

/// Keys of its own on a set of servers that sentinels watch over.
pub struct Sentinel(Share<SentinelSet>);

impl Backend for Sentinel {
    async fn start() -> Self {
        static RUNNING: Running<SentinelSet> = Running::none();
        Self(RUNNING.share(SentinelSet::start()).await)
    }
}

impl test_util::Backend for Sentinel {
    type Store = RedisStore;

    async fn store(&self) -> RedisStore {
        self.0.connect(self.0.servers.url()).await
    }
}

/// Keys of its own on a cluster.
pub struct Cluster(Share<harness::Cluster>);

impl Backend for Cluster {
    async fn start() -> Self {
        static RUNNING: Running<harness::Cluster> = Running::none();
        Self(RUNNING.share(harness::Cluster::start(Flavor::Redis)).await)
    }
}

impl Cluster {
    /// The primary and the key of the sessions of a user.
    pub async fn sessions_of(&self, user_id: &str) -> (&RedisServer, String) {
        let key = format!("{}:tokens:{{{user_id}}}", self.0.prefix);
        (self.0.servers.primary_of(&key).await, key)
    }
}

impl test_util::Backend for Cluster {
    type Store = RedisStore;

    async fn store(&self) -> RedisStore {
        self.0.connect(self.0.servers.url()).await
    }
}

/// Servers that take seconds to start: tests share them, and the last one to use them ends them.
pub(super) struct Running<T>(Mutex<Weak<T>>);

impl<T> Running<T> {
    pub(super) const fn none() -> Self {
        Self(Mutex::const_new(Weak::new()))
    }

    /// Starts them unless they are running.
    pub(super) async fn share(&self, start: impl Future<Output = T>) -> Share<T> {
        let mut running = self.0.lock().await;
        let servers = match running.upgrade() {
            Some(servers) => servers,
            None => Arc::new(start.await),
        };
        *running = Arc::downgrade(&servers);
        Share::of(servers)
    }
}

/// What one test has of them: the keys with a prefix that no other test has.
pub(super) struct Share<T> {
    pub(super) servers: Arc<T>,
    pub(super) prefix: String,
}

impl<T> Share<T> {
    fn of(servers: Arc<T>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { servers, prefix }
    }

    async fn connect(&self, url: String) -> RedisStore {
        let prefix = &self.prefix;
        let builder = RedisStore::builder(url)
            .token_key_prefix(format!("{prefix}:tokens"))
            .user_key_prefix(format!("{prefix}:users"));
        connect(builder).await
    }
}
