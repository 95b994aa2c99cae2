//! Connections to single servers.

use std::{io, net::SocketAddr, time::Duration};

use redis::{
    AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisResult,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    address::Address,
    errors::ErrorText,
    login::Login,
    resolve::Resolver,
    tcp::{connect, first},
    tls::Connector,
};

/// Connects to servers at any address.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) resolver: Resolver,
    pub(crate) login: Login,
    pub(crate) errors: ErrorText,
    pub(crate) db: u32,
    pub(crate) tls: Option<Connector>,
    pub(crate) connect_timeout: Duration,
    /// Whether each network address of a seed is a server of its own.
    pub(crate) expands_seeds: bool,
}

/// A server that the store was configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) address: Address,
    /// One of several servers with the same host name: its network address and that name.
    peer: Option<(SocketAddr, String)>,
}

impl Dialer {
    /// The servers at a configured address.
    pub(crate) async fn seeds(&self, configured: &Address) -> io::Result<Vec<Seed>> {
        if !self.expands_seeds {
            return Ok(vec![Seed::at(configured)]);
        }
        let peers = timeout(self.connect_timeout, self.resolver.resolve(configured)).await??;
        let seeds = peers.into_iter().map(|peer| Seed {
            address: Address {
                host: peer.ip().to_string(),
                port: peer.port(),
            },
            peer: Some((peer, configured.host.clone())),
        });
        Ok(seeds.collect())
    }

    /// Like [`dial`](Self::dial).
    pub(crate) async fn dial_seed(
        &self,
        seed: &Seed,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        let Some((peer, host)) = &seed.peer else {
            return self.dial(&seed.address, on_push).await;
        };
        let dialing = self.dial_one_of(vec![*peer], host, on_push);
        timeout(self.connect_timeout, dialing)
            .await
            .map_err(io::Error::from)?
    }

    /// Connects and logs in. `on_push` gets what the server says unasked, and the loss of the connection.
    pub(crate) async fn dial(
        &self,
        to: &Address,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        let dialing = async {
            let peers = self.resolver.resolve(to).await?;
            self.dial_one_of(peers, &to.host, on_push).await
        };
        timeout(self.connect_timeout, dialing)
            .await
            .map_err(io::Error::from)?
    }

    /// Connects to the first of these peers that answers. A certificate has to be one of this host.
    async fn dial_one_of(
        &self,
        peers: Vec<SocketAddr>,
        host: &str,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        match &self.tls {
            Some(tls) => {
                let stream = tls.connect(peers, host).await?;
                self.log_in(stream, on_push).await
            }
            None => self.log_in(first(peers, connect).await?, on_push).await,
        }
    }

    async fn log_in(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        let settings = RedisConnectionInfo::default()
            // RESP3 tells of a lost connection even while it is idle.
            .set_protocol(ProtocolVersion::RESP3)
            // The client would go on telling it to servers that refuse to hear it.
            .set_skip_set_lib_name()
            .set_db(self.db.into());
        let settings = self.login.add_to(settings, &self.errors).await?;
        let config = AsyncConnectionConfig::new()
            // Whole operations have a deadline.
            .set_response_timeout(None)
            .set_push_sender(OnPush(on_push));
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&settings, stream, config).await?;
        // It ends with the last handle of the connection.
        tokio::spawn(driver);
        Ok(connection)
    }
}

impl Seed {
    /// Whatever server is at this address.
    pub(crate) fn at(address: &Address) -> Self {
        Self {
            address: address.clone(),
            peer: None,
        }
    }
}

struct OnPush<F>(F);

impl<F: Fn(PushInfo) + Send + Sync + 'static> AsyncPushSender for OnPush<F> {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        self.0(push);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::net::TcpListener;
    use tower::BoxError;

    use super::*;
    use crate::store::redis::wire::login::{Credentials, CredentialsSource};

    /// Whatever hangs, of what the application has given, an attempt to connect ends in time.
    #[tokio::test]
    async fn an_attempt_takes_no_longer_because_of_the_application() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Address {
            host: String::from("127.0.0.1"),
            port: silent.local_addr().unwrap().port(),
        };
        let credentials = CredentialsSource::new(pending::<Result<_, BoxError>>);
        let resolver = Resolver::custom(|_, _| pending::<Result<_, BoxError>>());
        for (resolver, login) in [
            (resolver, Login::With(Credentials::default())),
            (Resolver::system(), Login::From(credentials)),
        ] {
            let dialer = Dialer {
                resolver,
                login,
                errors: ErrorText::default(),
                db: 0,
                tls: None,
                connect_timeout: Duration::from_millis(50),
                expands_seeds: false,
            };
            let error = dialer.dial(&to, drop).await.err().unwrap();
            assert!(error.is_timeout(), "{error}");
        }
    }
}
