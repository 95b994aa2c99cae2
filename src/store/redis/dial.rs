//! Connections to single servers.

#[cfg(feature = "redis-tls")]
use std::io;
use std::{fmt, net::IpAddr, time::Duration};

#[cfg(feature = "redis-tls")]
use redis::io::tcp::socket2::SockRef;

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisResult,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

/// A peer that has not acknowledged data or keepalive probes for this long is gone.
const DEAD_PEER: Duration = Duration::from_secs(2);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Who logs in.
#[derive(Clone, Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct Credentials {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

/// How to connect to one server, wherever it is.
#[derive(Clone)]
pub(super) struct Dialer {
    redis: RedisConnectionInfo,
    connection: AsyncConnectionConfig,
    #[cfg(feature = "redis-tls")]
    tls: Option<super::tls::Connector>,
    #[cfg(feature = "redis-tls")]
    connect_timeout: Duration,
}

impl Dialer {
    pub(super) fn new(credentials: Credentials, db: u32, connect_timeout: Duration) -> Self {
        let mut redis = RedisConnectionInfo::default()
            // RESP3 tells of a lost connection even while it is idle.
            .set_protocol(ProtocolVersion::RESP3)
            // The client would go on telling it to servers that refuse to hear it.
            .set_skip_set_lib_name()
            .set_db(db.into());
        if let Some(username) = credentials.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = credentials.password {
            redis = redis.set_password(password);
        }
        let connection = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_timeout))
            // Whole operations have a deadline.
            .set_response_timeout(None);
        Self {
            redis,
            connection,
            #[cfg(feature = "redis-tls")]
            tls: None,
            #[cfg(feature = "redis-tls")]
            connect_timeout,
        }
    }

    #[cfg(feature = "redis-tls")]
    pub(super) fn with_tls(mut self, config: rustls::ClientConfig) -> Self {
        self.tls = Some(super::tls::Connector::new(config));
        self
    }

    /// Connects and logs in. `on_push` gets what the server says unasked, and the loss of the connection.
    pub(super) async fn dial(
        &self,
        to: &Address,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        let config = self.connection.clone().set_push_sender(OnPush(on_push));
        #[cfg(feature = "redis-tls")]
        if let Some(tls) = &self.tls {
            return self.dial_with(tls, to, config).await;
        }
        let info = ConnectionAddr::Tcp(to.host.clone(), to.port)
            .into_connection_info()?
            .set_tcp_settings(tcp_settings())
            .set_redis_settings(self.redis.clone());
        Client::open(info)?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    #[cfg(feature = "redis-tls")]
    async fn dial_with(
        &self,
        tls: &super::tls::Connector,
        to: &Address,
        config: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let dialing = async {
            let stream = tls.connect(&to.host, to.port, prepare).await?;
            MultiplexedConnection::new_with_config(&self.redis, stream, config).await
        };
        let dialed = tokio::time::timeout(self.connect_timeout, dialing).await;
        let (connection, driver) = dialed.map_err(io::Error::from)??;
        // It ends with the last handle of the connection.
        tokio::spawn(driver);
        Ok(connection)
    }
}

struct OnPush<F>(F);

impl<F: Fn(PushInfo) + Send + Sync + 'static> AsyncPushSender for OnPush<F> {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        self.0(push);
        Ok(())
    }
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(DEAD_PEER)
        .with_interval(DEAD_PEER / 2)
}

/// The [`tcp_settings`] for a connection that the client library did not make.
#[cfg(feature = "redis-tls")]
fn prepare(stream: &tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive())?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(DEAD_PEER))?;
    Ok(())
}

fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive());
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(DEAD_PEER);
    settings
}

impl Address {
    /// Whether it is a host name, which may lead to another server at any time.
    pub(super) fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }

    /// Reads `host`, `host:port`, `ipv6` or `[ipv6]:port`.
    pub(super) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
            None => match text.split_once(':') {
                // More than one colon, and no brackets.
                Some((_, port)) if port.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"@/?#[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(allowed) {
            return None;
        }
        Some(Self {
            host: host.to_owned(),
            port: port.map_or(Some(default_port), |port| port.parse().ok())?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_told_from_an_ip_address() {
        let is_name = |text| Address::parse(text, 6379).unwrap().is_name();
        assert!(
            ["localhost", "redis-1.example:7000", "10.0.0.1.example"]
                .into_iter()
                .all(is_name)
        );
        assert!(
            !["10.0.0.1:1", "::1", "[fe80::1]:7000"]
                .into_iter()
                .any(is_name)
        );
    }

    #[test]
    fn addresses_are_read_and_written() {
        for (text, host, port) in [
            ("localhost", "localhost", 6379),
            ("redis-1.example:7000", "redis-1.example", 7000),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("::1", "::1", 6379),
            ("[::1]", "::1", 6379),
            ("[fe80::1]:7000", "fe80::1", 7000),
        ] {
            let address = Address::parse(text, 6379).unwrap();
            assert_eq!((&*address.host, address.port), (host, port), "{text}");
            assert_eq!(Address::parse(&address.to_string(), 1), Some(address));
        }
        for bad in [
            "", ":1", "[]:1", "a:", "a:b", "a:65536", "[::1]1", "[::1", "u:p@h", "u@h", "a/1",
            "a b",
        ] {
            assert_eq!(Address::parse(bad, 6379), None, "{bad:?}");
        }
    }
}
