use std::{fmt, time::Duration};

use self::{
    tls::Tls,
    url::{PORT, Place, SENTINEL_PORT, Target},
};
use crate::{
    Error,
    store::{
        config::config_error,
        redis::{
            ops::confirm::Confirm,
            wire::{address::Address, dial::Credentials},
        },
    },
};

mod check;
mod connect;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod tls;
mod url;

/// Configures a [`RedisStore`](crate::RedisStore); made by [`RedisStore::builder`](crate::RedisStore::builder), or by
/// [`standalone`](Self::standalone), [`sentinel`](Self::sentinel) or [`cluster`](Self::cluster).
///
/// Mistakes are reported by [`connect`](Self::connect) and [`connect_lazy`](Self::connect_lazy).
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect`"]
pub struct RedisStoreBuilder {
    target: Result<Target, Error>,
    username: Option<String>,
    password: Option<String>,
    sentinel: Credentials,
    db: Option<u32>,
    with_tls: Option<bool>,
    with_sentinel_tls: Option<bool>,
    tls: Tls,
    token_key_prefix: String,
    user_key_prefix: String,
    connect_timeout: Duration,
    deadline: Duration,
    max_connection_age: Duration,
    confirm: Option<Confirm>,
}

impl RedisStoreBuilder {
    fn new(target: Result<Target, Error>) -> Self {
        Self {
            target,
            username: None,
            password: None,
            sentinel: Credentials::default(),
            db: None,
            with_tls: None,
            with_sentinel_tls: None,
            tls: Tls::default(),
            token_key_prefix: String::from("tbs:tokens"),
            user_key_prefix: String::from("tbs:users"),
            connect_timeout: Duration::from_secs(1),
            deadline: Duration::from_millis(500),
            max_connection_age: Duration::from_secs(3),
            confirm: None,
        }
    }

    pub(super) fn from_url(url: &str) -> Self {
        Self::new(Target::parse(url))
    }

    /// One server, the primary, at `host[:port]`; the port is 6379 if none is given.
    ///
    /// A replica is refused. The store follows the address to another primary: see
    /// [`max_connection_age`](Self::max_connection_age).
    pub fn standalone(address: impl AsRef<str>) -> Self {
        Self::at(Place::Standalone, PORT, [address])
    }

    /// The master that these sentinels name for `service`. A sentinel is `host[:port]`; the port is 26379 if
    /// none is given.
    ///
    /// Name them all: the store asks those that are named, and no others.
    pub fn sentinel(
        sentinels: impl IntoIterator<Item = impl AsRef<str>>,
        service: impl Into<String>,
    ) -> Self {
        let place = Place::Sentinel {
            service: service.into(),
            credentials: Credentials::default(),
            tls: None,
        };
        Self::at(place, SENTINEL_PORT, sentinels)
    }

    /// The cluster that these nodes belong to. A node is `host[:port]`; the port is 6379 if none is given.
    ///
    /// A few are enough, as long as one of them can be reached when the store connects.
    pub fn cluster(nodes: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self::at(Place::Cluster, PORT, nodes)
    }

    fn at(place: Place, port: u16, nodes: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let nodes = nodes.into_iter().map(|node| {
            let message = "an address of a Redis server is not `host[:port]`";
            Address::parse(node.as_ref(), port).ok_or_else(|| config_error(message))
        });
        let nodes: Result<Vec<_>, _> = nodes.collect();
        Self::new(nodes.map(|nodes| Target::new(place, nodes)))
    }

    /// The ACL user to log in as. Default: what the URL says.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password to log in with. Default: what the URL says.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The ACL user to log in as at the sentinels. Default: what the URL says (`sentinelUsername`), not
    /// what is used for the servers.
    pub fn sentinel_username(mut self, username: impl Into<String>) -> Self {
        self.sentinel.username = Some(username.into());
        self
    }

    /// The password to log in with at the sentinels. Default: what the URL says (`sentinelPassword`),
    /// not what is used for the servers.
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.sentinel.password = Some(password.into());
        self
    }

    /// The number of the database. Default: what the URL says, or 0, the only one of a cluster.
    pub fn db(mut self, db: u32) -> Self {
        self.db = Some(db);
        self
    }

    /// Whether to speak TLS. Default: whether the scheme of the URL is `rediss…`, or `false`.
    ///
    /// Certificates of servers are verified, against the host by which each was found: that of the URL, or what
    /// sentinels or nodes of the cluster say. The cryptography is that of the process's default [crypto
    /// provider](https://docs.rs/rustls/0.23/rustls/crypto/struct.CryptoProvider.html) for rustls if the program has
    /// installed one before, and of `ring` otherwise; the store never installs one.
    #[cfg(feature = "redis-tls")]
    pub fn tls(mut self, tls: bool) -> Self {
        self.with_tls = Some(tls);
        self
    }

    /// Whether to speak TLS to the sentinels. Default: what the URL says (`sentinelTls`), or the same as to the
    /// servers. Roots and client certificate are the same, too.
    #[cfg(feature = "redis-tls")]
    pub fn sentinel_tls(mut self, tls: bool) -> Self {
        self.with_sentinel_tls = Some(tls);
        self
    }

    /// The certificates, in PEM, of the authorities that are trusted. Default: those of Mozilla.
    #[cfg(feature = "redis-tls")]
    pub fn tls_roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.roots = Some(pem.into());
        self
    }

    /// The certificate to show to servers, with those that it depends on, and its private key, both in PEM.
    /// Default: none.
    #[cfg(feature = "redis-tls")]
    pub fn tls_client_certificate(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.tls.client = Some((chain.into(), key.into()));
        self
    }

    /// What the keys of sessions begin with: `<prefix>:{<user id>}`. Default: `tbs:tokens`.
    ///
    /// All services that share sessions must agree on it. A prefix has 1 to 64 printable ASCII
    /// characters, no space and no braces.
    pub fn token_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.token_key_prefix = prefix.into();
        self
    }

    /// What the keys of cached users begin with: `<prefix>:{<user id>}`. Default: `tbs:users`.
    ///
    /// It must differ from the other prefix. Only services that have the same user type *and* the same user
    /// loader can share it; others would undo each other's work, and refuse users that the other
    /// one knows. Give it a version if the type changes (`shop:users:v2`).
    pub fn user_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.user_key_prefix = prefix.into();
        self
    }

    /// How long one attempt to connect may take, login included: at most an hour. Default: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an operation may take in all, at most an hour: waiting for a connection, its round trips, and a retry
    /// after a dropped connection. Default: 500 ms.
    ///
    /// A list of very many sessions is read in pages. This deadline is for each page, and all pages together may take
    /// twenty times as long (10 seconds); a list that is not complete by then is an error of kind
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout). The same holds for a login that has to end very many sessions
    /// of its user first, because the session limit is new.
    ///
    /// A write has three quarters of the deadline, and at most a second, to reach the server, by the server's clock.
    /// After that the server does not execute it, and it is sent again if there is time left.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long a connection to a standalone server, or to a node of a cluster that is known by host name, is used for
    /// new operations, at most an hour. Default: 3 seconds.
    ///
    /// A name, a virtual address or a load balancer can lead to another primary while the old one goes on serving those
    /// who are still connected to it. So a new connection takes the place of one that has reached this age, whether or
    /// not the store is busy; what is in flight on the old one is finished there. **No operation that begins later than
    /// this after the address has moved goes to the old server**, provided that the new one accepts connections without
    /// delay: until a new connection is there, the old one stays in use. A store connects to a server up to three times
    /// in turn, for checks and writes, for lists, and for replicas to confirm. If it cannot,
    /// [`RedisHealth::last_error`](crate::RedisHealth::last_error) tells why.
    ///
    /// A server that is demoted in place is noticed within about a second, whatever this age.
    ///
    /// A new connection takes about 0.1 ms of the server's time, and with TLS up to 1 ms; by default each process makes
    /// one about every two seconds. Set a longer time if very many processes use one server over TLS, or if nothing but
    /// the server itself can be behind its address.
    ///
    /// It has no effect on nodes of a cluster that announce IP addresses, whose peers tell when another node takes
    /// their slots, and with Sentinel, where the sentinels tell who the master is.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.max_connection_age = age;
        self
    }

    /// Lets logouts and refreshes wait, for at most `timeout` after they are done at the primary, until `replicas`
    /// replicas have them, too. Default: they do not wait.
    ///
    /// Replication of Redis is asynchronous: what only a dying primary knew is undone by the failover, a logout
    /// included. With this, an operation that returns `Ok` is on as many replicas, and one that returns
    /// [`ErrorKind::Unconfirmed`](crate::ErrorKind::Unconfirmed) is done at the primary but may be on fewer: repeat it,
    /// or tell the user that the logout may be undone by an outage. It costs a round trip, and another one between the
    /// servers ([`WAIT`](https://redis.io/docs/latest/commands/wait/)), on a connection of its own. Checks and logins
    /// do not wait, nor does the end of the sessions that a login evicts.
    ///
    /// It is no consensus: a replica that has not confirmed may still become the primary. Ask for all
    /// replicas that may be promoted, and set `min-replicas-to-write` (and `min-replicas-max-lag`) at the
    /// servers, so that a primary that is cut off from its replicas stops to take writes
    /// (then [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable)) that are lost when it comes back.
    pub fn confirm_replicas(mut self, replicas: u32, timeout: Duration) -> Self {
        self.confirm = Some(Confirm { replicas, timeout });
        self
    }
}

impl fmt::Debug for RedisStoreBuilder {
    /// Leaves out addresses, passwords and certificates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("username", &self.username)
            .field("db", &self.db)
            .field("token_key_prefix", &self.token_key_prefix)
            .field("user_key_prefix", &self.user_key_prefix)
            .field("connect_timeout", &self.connect_timeout)
            .field("deadline", &self.deadline)
            .field("max_connection_age", &self.max_connection_age)
            .field("confirm", &self.confirm)
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
        ] {
            let error = bad.connect_lazy().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        builder().connect_lazy().unwrap();
    }
}
