//! Connections to single servers.

#[cfg(feature = "redis-tls")]
use std::io;
use std::time::Duration;

#[cfg(feature = "redis-tls")]
use redis::io::tcp::socket2::SockRef;

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisResult,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use super::address::Address;

/// A peer that has not acknowledged data or keepalive probes for this long is gone.
const DEAD_PEER: Duration = Duration::from_secs(2);

/// The credentials of a login.
#[derive(Clone, Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

/// Connects to servers at any address.
#[derive(Clone)]
pub(crate) struct Dialer {
    redis: RedisConnectionInfo,
    connection: AsyncConnectionConfig,
    #[cfg(feature = "redis-tls")]
    tls: Option<super::tls::Connector>,
    #[cfg(feature = "redis-tls")]
    connect_timeout: Duration,
}

impl Dialer {
    pub(crate) fn new(credentials: Credentials, db: u32, connect_timeout: Duration) -> Self {
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
    pub(crate) fn with_tls(mut self, config: rustls::ClientConfig) -> Self {
        self.tls = Some(super::tls::Connector::new(config));
        self
    }

    /// Connects and logs in. `on_push` gets what the server says unasked, and the loss of the connection.
    pub(crate) async fn dial(
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
