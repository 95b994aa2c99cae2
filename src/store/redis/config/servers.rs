//! Which servers a store uses, and how it gets to them.

use std::net::SocketAddr;

use tower::BoxError;

use super::{
    RedisStoreBuilder,
    url::{Deployment, PORT, SENTINEL_PORT, Target},
};
use crate::store::{
    config::config_error,
    redis::wire::{
        address::Address,
        login::{Credentials, CredentialsSource, RedisCredentials},
        resolve::Resolver,
    },
};

impl RedisStoreBuilder {
    /// Uses one server, the primary, at `host[:port]`. The default port is 6379.
    ///
    /// The store refuses a replica. It follows the address to another primary: see
    /// [`max_connection_age`](Self::max_connection_age).
    pub fn standalone(address: impl AsRef<str>) -> Self {
        Self::at(Deployment::Standalone, PORT, [address])
    }

    /// Uses the master that these sentinels name for `service`. A sentinel is `host[:port]`, with the default port
    /// 26379.
    ///
    /// List all sentinels, or a name that leads to all of them with [`expand_names`](Self::expand_names): the store asks
    /// no others.
    pub fn sentinel(
        sentinels: impl IntoIterator<Item = impl AsRef<str>>,
        service: impl Into<String>,
    ) -> Self {
        let deployment = Deployment::Sentinel {
            service: service.into(),
            credentials: Credentials::default(),
            tls: None,
        };
        Self::at(deployment, SENTINEL_PORT, sentinels)
    }

    /// Uses the cluster that these nodes belong to. A node is `host[:port]`, with the default port 6379.
    ///
    /// A few nodes are enough, as long as one of them is reachable when the store connects.
    pub fn cluster(nodes: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self::at(Deployment::Cluster, PORT, nodes)
    }

    fn at(
        deployment: Deployment,
        port: u16,
        nodes: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Self {
        let nodes = nodes.into_iter().map(|node| {
            let message = "an address of a Redis server is not `host[:port]`";
            Address::parse(node.as_ref(), port).ok_or_else(|| config_error(message))
        });
        let nodes: Result<Vec<_>, _> = nodes.collect();
        Self::new(nodes.map(|nodes| Target::new(deployment, nodes)))
    }

    /// The ACL user to log in as. Default: the one in the URL.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password to log in with. Default: the one in the URL.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Gets the credentials for each new connection from this function, for example a password that is rotated, or a
    /// token of the cloud provider. Default: those of the URL and of the methods; with both,
    /// [`connect`](Self::connect) fails with [`ErrorKind::Config`](crate::ErrorKind::Config).
    ///
    /// It is called for each attempt to connect, whose [`connect_timeout`](Self::connect_timeout) includes its time: for
    /// up to three connections to each server, each time they reach their
    /// [maximum age](Self::max_connection_age), and up to several times a second while no login succeeds. So it should
    /// keep the credentials for as long as they are valid. If it fails or panics, the attempt fails with
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), and
    /// [`RedisHealth::last_error`](crate::RedisHealth::last_error) contains the text of the error, without its sources;
    /// it must not contain secrets. A connection that the server closes because its credentials have expired is replaced
    /// like any that is lost. Sentinels have their own, fixed credentials.
    ///
    /// ```no_run
    /// use tower_bearer_session::{RedisCredentials, RedisStoreBuilder};
    ///
    /// let builder = RedisStoreBuilder::standalone("redis.example").credentials_from(|| async {
    ///     let password = tokio::fs::read_to_string("/run/secrets/redis").await?;
    ///     Ok::<_, std::io::Error>(RedisCredentials::new("app", password.trim_end()))
    /// });
    /// ```
    pub fn credentials_from<F, Fut, E>(mut self, source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<RedisCredentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.credentials_source = Some(CredentialsSource::new(source));
        self
    }

    /// Finds the network addresses of servers by this function, from host and port. Default: the system resolves host
    /// names, up to 16 of them at the same time, and IP addresses are used as they are.
    ///
    /// It is called for every server, whether the application, a sentinel or a node of the cluster has named it: it can
    /// map the addresses inside a private network to those that lead there from here. With several addresses, the store
    /// connects to all of them, and uses the first that answers; there may be 256. TLS still verifies the certificate
    /// against the host. The host may be any text that a sentinel or a node has announced.
    ///
    /// Its time is part of the [`connect_timeout`](Self::connect_timeout). If it fails or panics, or finds nothing, the
    /// attempt to connect fails with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), and
    /// [`RedisHealth::last_error`](crate::RedisHealth::last_error) contains the text of the error; it must not contain
    /// secrets. Because it may find another server at any time, all connections have a
    /// [maximum age](Self::max_connection_age).
    ///
    /// ```no_run
    /// use std::{io, net::SocketAddr};
    /// use tower_bearer_session::RedisStoreBuilder;
    ///
    /// // Each node of the cluster is forwarded to a port of this host.
    /// let builder = RedisStoreBuilder::cluster(["10.0.0.1"]).resolve_with(|host, port| async move {
    ///     let forwarded = match &*host {
    ///         "10.0.0.1" => 7001,
    ///         "10.0.0.2" => 7002,
    ///         _ => return Ok(tokio::net::lookup_host((host, port)).await?.collect()),
    ///     };
    ///     Ok::<_, io::Error>(vec![SocketAddr::from(([127, 0, 0, 1], forwarded))])
    /// });
    /// ```
    pub fn resolve_with<F, Fut, E>(mut self, resolve: F) -> Self
    where
        F: Fn(String, u16) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<SocketAddr>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.resolver = Resolver::custom(resolve);
        self
    }

    /// Whether each network address of a configured host is a sentinel, or a node of the cluster, of its own. Default:
    /// `false`, one host is one server.
    ///
    /// For a name that stands for all of them, such as that of a headless service in Kubernetes. The sentinels are looked
    /// up every five seconds; the majority that decides on the master is one of those that were found last, so the name
    /// has to lead to all of them, and not only to those that are ready (`publishNotReadyAddresses`): whoever controls
    /// the name controls which server is used. A sentinel with two addresses would have two voices. With TLS, the
    /// certificate of a configured server is verified against the configured name, and that of any other node of the
    /// cluster against what it announces (`cluster-announce-hostname`), or all against
    /// `tls_server_name`. If the name cannot be resolved, the sentinels that were found before are asked.
    /// It has no effect on a standalone server.
    pub fn expand_names(mut self, enabled: bool) -> Self {
        self.expands_names = enabled;
        self
    }

    /// The ACL user to log in as at the sentinels. Default: the one in the URL (`sentinelUsername`); the user for the
    /// servers is not used for the sentinels.
    pub fn sentinel_username(mut self, username: impl Into<String>) -> Self {
        self.sentinel.username = Some(username.into());
        self
    }

    /// The password to log in with at the sentinels. Default: the one in the URL (`sentinelPassword`); the password for
    /// the servers is not used for the sentinels.
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.sentinel.password = Some(password.into());
        self
    }

    /// The number of the database. Default: the one in the URL, or 0. A cluster has only database 0.
    pub fn db(mut self, db: u32) -> Self {
        self.db = Some(db);
        self
    }

    /// Whether to use TLS. Default: `true` if the scheme of the URL is `rediss…`, otherwise `false`.
    ///
    /// The store verifies the certificate of each server against the host by which it found the server: the one in the
    /// URL, or the one that a sentinel or a node of the cluster reported. The cryptography is that of the process's
    /// default [crypto provider](https://docs.rs/rustls/0.23/rustls/crypto/struct.CryptoProvider.html) for rustls if
    /// the program has installed one before, and of `ring` otherwise; the store never installs one.
    #[cfg(feature = "redis-tls")]
    pub fn tls(mut self, tls: bool) -> Self {
        self.with_tls = Some(tls);
        self
    }

    /// Whether to use TLS to the sentinels. Default: the value in the URL (`sentinelTls`), or the same as to the
    /// servers. Roots and client certificate are the same as for the servers.
    ///
    /// Sentinels without TLS may name any host, whose certificate anybody can have. Then TLS to the servers needs
    /// [`tls_roots`](Self::tls_roots) or [`tls_server_name`](Self::tls_server_name): without them,
    /// [`connect`](Self::connect) fails with [`ErrorKind::Config`](crate::ErrorKind::Config).
    #[cfg(feature = "redis-tls")]
    pub fn sentinel_tls(mut self, tls: bool) -> Self {
        self.with_sentinel_tls = Some(tls);
        self
    }

    /// The name in the certificates of all servers and sentinels: a host name or an IP address. Default: the host by
    /// which the store found each server.
    ///
    /// With one name for all, the certificate does not tell servers apart: whoever controls addresses can lead to any
    /// other server that has it. If it is no name, or TLS is off, [`connect`](Self::connect) fails with
    /// [`ErrorKind::Config`](crate::ErrorKind::Config).
    #[cfg(feature = "redis-tls")]
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.tls.server_name = Some(name.into());
        self
    }

    /// The certificates of the trusted authorities, in PEM. Default: the Mozilla root certificates.
    #[cfg(feature = "redis-tls")]
    pub fn tls_roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.roots = Some(pem.into());
        self
    }

    /// The client certificate chain and its private key, both in PEM. Default: none.
    #[cfg(feature = "redis-tls")]
    pub fn tls_client_certificate(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.tls.client = Some((chain.into(), key.into()));
        self
    }
}
