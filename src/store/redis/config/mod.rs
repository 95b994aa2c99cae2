use std::{fmt, time::Duration};

use self::{tls::Tls, url::Target};
use crate::{
    Error,
    store::{
        config::config_error,
        redis::{
            near::NearCache,
            ops::confirm::Confirm,
            wire::{
                login::{Credentials, CredentialsSource},
                resolve::Resolver,
            },
        },
    },
};

mod check;
mod connect;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod servers;
mod tls;
mod url;

/// The builder of a [`RedisStore`](crate::RedisStore).
///
/// [`RedisStore::builder`](crate::RedisStore::builder) creates one from a URL; [`standalone`](Self::standalone),
/// [`sentinel`](Self::sentinel) and [`cluster`](Self::cluster) create one from addresses. [`connect`](Self::connect)
/// and [`connect_lazy`](Self::connect_lazy) report invalid settings.
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect`"]
pub struct RedisStoreBuilder {
    target: Result<Target, Error>,
    username: Option<String>,
    password: Option<String>,
    credentials_source: Option<CredentialsSource>,
    sentinel: Credentials,
    db: Option<u32>,
    with_tls: Option<bool>,
    with_sentinel_tls: Option<bool>,
    tls: Tls,
    resolver: Resolver,
    expands_names: bool,
    token_key_prefix: String,
    user_key_prefix: String,
    connect_timeout: Duration,
    deadline: Duration,
    sheds_load: bool,
    max_connection_age: Duration,
    confirm: Option<Confirm>,
    near: Option<NearCache>,
}

impl RedisStoreBuilder {
    fn new(target: Result<Target, Error>) -> Self {
        Self {
            target,
            username: None,
            password: None,
            credentials_source: None,
            sentinel: Credentials::default(),
            db: None,
            with_tls: None,
            with_sentinel_tls: None,
            tls: Tls::default(),
            resolver: Resolver::system(),
            expands_names: false,
            token_key_prefix: String::from("tbs:tokens"),
            user_key_prefix: String::from("tbs:users"),
            connect_timeout: Duration::from_secs(1),
            deadline: Duration::from_millis(500),
            sheds_load: true,
            max_connection_age: Duration::from_secs(3),
            confirm: None,
            near: None,
        }
    }

    pub(super) fn from_url(url: &str) -> Self {
        Self::new(Target::parse(url))
    }

    /// The prefix of the keys of sessions: `<prefix>:{<user id>}`. Default: `tbs:tokens`.
    ///
    /// All services that share sessions must use the same prefix. A prefix consists of 1 to 64 printable ASCII
    /// characters, without spaces and braces.
    pub fn token_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.token_key_prefix = prefix.into();
        self
    }

    /// The prefix of the keys of cached users: `<prefix>:{<user id>}`. Default: `tbs:users`.
    ///
    /// It must differ from the prefix of sessions. Only services with the same user type *and* the same user loader can
    /// share it: others would overwrite each other's cached users, and refuse users that only the other service knows.
    /// Add a version to the prefix when the type changes (`shop:users:v2`).
    pub fn user_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.user_key_prefix = prefix.into();
        self
    }

    /// The time limit of one connection attempt, including the login: at most an hour. Default: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The deadline of an operation: at most an hour. Default: 500 ms.
    ///
    /// It covers waiting for a connection, all round trips, and a retry after a dropped connection. A list of very many
    /// sessions is read in pages: each page has this deadline, and all pages together may take twenty times as long
    /// (10 seconds). A list that is not complete by then fails with
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout). The same limits hold for a login that first has to end very
    /// many sessions of its user, because the session limit is new.
    ///
    /// A write has three quarters of the deadline, and at most a second, to reach the server, by the server's clock.
    /// After that the server does not execute it, and the store sends it again if there is time left.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether checks are refused at once, with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), when a server
    /// is overloaded. Default: `true`.
    ///
    /// A server that gets more work than it can do would answer all checks too late. So the store limits how many checks
    /// are in flight on each connection. The limit is 65,536. It shrinks when replies take longer than a tenth to a
    /// fifth of the [deadline](Self::deadline), or half as long again as the fastest ones if the way to the server is
    /// long, and grows again when they do not. A process that does not get its turn to run sees long delays, too.
    /// Logins, refreshes and logouts are never refused. Where a check comes before them, as under a `SessionLayer`, it
    /// may be. `RedisHealth` counts the [refused checks](crate::RedisHealth::refused_checks).
    pub fn load_shedding(mut self, enabled: bool) -> Self {
        self.sheds_load = enabled;
        self
    }

    /// The maximum age at which a connection is used for new operations: at most an hour. Default: 3 seconds.
    ///
    /// It applies to connections to a standalone server, and to nodes of a cluster that are known by host name or found by
    /// [`resolve_with`](Self::resolve_with). A name,
    /// a virtual address or a load balancer can lead to another primary while the old one continues to serve its open
    /// connections. So the store replaces a connection before it has reached this age, whether or not the store is
    /// busy. Operations in flight on the old connection complete there. **No operation that begins later than this
    /// after the address has moved goes to the old server**, provided that the new server accepts connections without
    /// delay: the old connection stays in use until a new one is open. A store opens up to three connections to a
    /// server, one after the other: for checks and writes, for lists, and for confirmations by replicas. If it cannot
    /// connect, [`RedisHealth::last_error`](crate::RedisHealth::last_error) contains the reason.
    ///
    /// With a [near-cache](Self::near_cache), the old connection stays in use if the new one shows that the address
    /// leads to the same run of the server; the new one is closed.
    ///
    /// The store notices within about a second when a server is demoted in place, whatever this age.
    ///
    /// A new connection takes about 0.1 ms of the server's time, and with TLS up to 1 ms. By default each process opens
    /// one about every two seconds. Set a higher age if very many processes use one server over TLS, or if the address
    /// cannot lead to another server.
    ///
    /// The age has no effect with Sentinel, because the sentinels report the current master, and on nodes of a cluster
    /// that announce IP addresses, unless [`resolve_with`](Self::resolve_with) finds them, because their peers report when
    /// another node takes over their slots.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.max_connection_age = age;
        self
    }

    /// Makes logouts and refreshes wait until `replicas` replicas have acknowledged them, for at most `timeout` after
    /// the primary has executed them. Default: they do not wait.
    ///
    /// Redis replicates asynchronously: a failover rolls back writes that only the failed primary had, including
    /// logouts. With this setting, an operation that returns `Ok` has reached that many replicas. An operation that
    /// fails with [`ErrorKind::Unconfirmed`](crate::ErrorKind::Unconfirmed) has taken effect at the primary, but may
    /// have reached fewer: repeat it, or tell the user that an outage may undo the logout. The wait costs a round trip,
    /// and another one between the servers ([`WAIT`](https://redis.io/docs/latest/commands/wait/)), on a separate
    /// connection. Checks, logins and evictions by logins do not wait.
    ///
    /// This is no consensus: a replica that has not acknowledged a write may still become the primary. Require as many
    /// replicas as may be promoted, and set `min-replicas-to-write` (and `min-replicas-max-lag`) at the servers: then a
    /// primary that is cut off from its replicas refuses writes
    /// ([`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable)), which would be lost when it returns.
    pub fn confirm_replicas(mut self, replicas: u32, timeout: Duration) -> Self {
        self.confirm = Some(Confirm { replicas, timeout });
        self
    }

    /// Answers checks in the process, from what earlier ones have found. Default: every check asks the server.
    ///
    /// The server announces every change, and the store drops what it knows of that user. A check may be answered as of
    /// up to [`max_staleness`](NearCache::max_staleness) ago, and **no longer** when the network or the server fails,
    /// or the server stops announcing changes: every process sees a logout within that time after the server has
    /// acknowledged it. See the [guide](crate::guide::near_cache) for what is traded, and what it costs.
    ///
    /// [`SessionStore::check_now`](crate::store::SessionStore::check_now) answers from the cache, and with it the layer
    /// and the manager; [`SessionStore::check`](crate::store::SessionStore::check) always asks the server. Only live
    /// sessions are cached. Writes through this store take effect on its own checks before they return.
    ///
    /// The account needs the rights `client|tracking` and `client|trackinginfo`, and should have `info`; the server
    /// must be reached without a proxy that shares connections. If the server refuses, every check asks it, and
    /// [`RedisHealth::last_error`](crate::RedisHealth::last_error) has the reason.
    pub fn near_cache(mut self, near: NearCache) -> Self {
        self.near = Some(near);
        self
    }
}

impl fmt::Debug for RedisStoreBuilder {
    /// Leaves out addresses, passwords and certificates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("username", &self.username)
            .field("db", &self.db)
            .field("expand_names", &self.expands_names)
            .field("token_key_prefix", &self.token_key_prefix)
            .field("user_key_prefix", &self.user_key_prefix)
            .field("connect_timeout", &self.connect_timeout)
            .field("deadline", &self.deadline)
            .field("load_shedding", &self.sheds_load)
            .field("max_connection_age", &self.max_connection_age)
            .field("confirm", &self.confirm)
            .field("near_cache", &self.near)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[tokio::test]
    async fn a_builder_checks_what_it_is_given() {
        let builder = || RedisStoreBuilder::from_url("redis://localhost");
        let cluster = || RedisStoreBuilder::cluster(["a", "b:1"]);
        let sentinel = || RedisStoreBuilder::sentinel(["a", "b:1"], "mymaster");
        let second = Duration::from_secs(1);
        for (bad, part) in [
            (builder().username("app"), "password"),
            (builder().deadline(Duration::ZERO), "deadline"),
            (builder().deadline(Duration::MAX), "deadline"),
            (builder().connect_timeout(Duration::ZERO), "connect_timeout"),
            (
                builder().max_connection_age(Duration::ZERO),
                "max_connection_age",
            ),
            (builder().token_key_prefix(""), "token_key_prefix"),
            (builder().user_key_prefix("tbs:tokens"), "differ"),
            (builder().sentinel_password("x"), "sentinel"),
            (builder().confirm_replicas(0, second), "confirm_replicas"),
            (
                builder().confirm_replicas(1, Duration::ZERO),
                "confirm_replicas",
            ),
            (cluster().db(3), "database"),
            (cluster().sentinel_username("x"), "sentinel"),
            (RedisStoreBuilder::cluster([""; 0]), "address"),
            (RedisStoreBuilder::cluster(["a", "b:c"]), "address"),
            (RedisStoreBuilder::standalone("redis://a"), "address"),
            (sentinel().sentinel_username("x"), "sentinel user"),
            (RedisStoreBuilder::sentinel(["a"], ""), "name"),
        ] {
            let error = bad.connect_lazy().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(part), "{error}");
        }
        for secret in [
            builder().password("hunter2"),
            sentinel().sentinel_password("hunter2"),
            RedisStoreBuilder::from_url("redis://:hunter2@localhost"),
            RedisStoreBuilder::from_url("hunter2"),
        ] {
            assert!(!format!("{secret:?}").contains("hunter2"));
        }
        cluster().db(0).connect_lazy().unwrap();
    }

    #[cfg(not(feature = "redis-tls"))]
    #[tokio::test]
    async fn tls_needs_the_feature() {
        for url in [
            "rediss://a",
            "rediss-cluster://a",
            "redis-sentinel://a?sentinelServiceName=m&sentinelTls=true",
        ] {
            let error = RedisStoreBuilder::from_url(url).connect_lazy().unwrap_err();
            assert!(error.to_string().contains("redis-tls"), "{error}");
        }
    }

    #[cfg(feature = "redis-tls")]
    #[tokio::test]
    async fn certificates_are_checked_at_once() {
        let builder = || RedisStoreBuilder::from_url("rediss://localhost");
        let empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        for (bad, part) in [
            (builder().tls_roots(""), "tls_roots"),
            (builder().tls_roots("hunter2"), "tls_roots"),
            (builder().tls_roots(empty), "tls_roots"),
            (
                builder().tls_client_certificate("", "hunter2"),
                "tls_client_certificate",
            ),
            (
                builder().tls_client_certificate(empty, "hunter2"),
                "tls_client_certificate",
            ),
            (builder().tls(false).tls_roots(empty), "TLS is off"),
            (
                RedisStoreBuilder::standalone("a").tls_roots(empty),
                "TLS is off",
            ),
            (
                RedisStoreBuilder::standalone("a").sentinel_tls(true),
                "sentinels",
            ),
            (
                RedisStoreBuilder::from_url(
                    "rediss-sentinel://a?sentinelServiceName=m&sentinelTls=false",
                ),
                "may name any host",
            ),
            (
                RedisStoreBuilder::sentinel(["a"], "m")
                    .tls(true)
                    .sentinel_tls(false),
                "may name any host",
            ),
        ] {
            let error = bad.connect_lazy().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        builder().connect_lazy().unwrap();
    }
}
