//! TLS connections: the client library would take its cryptography from a default of the whole process.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::tcp;

/// Makes TLS connections. Those of one connector resume each other's sessions.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    /// The name in the certificates of all servers; by default, that of each server's host.
    name: Option<ServerName<'static>>,
}

impl Connector {
    pub(crate) fn new(config: ClientConfig, name: Option<ServerName<'static>>) -> Self {
        let tls = TlsConnector::from(Arc::new(config));
        Self { tls, name }
    }

    /// Connects to all peers at once; the first to finish its handshake is it.
    pub(crate) async fn connect(
        &self,
        peers: Vec<SocketAddr>,
        host: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?
                .to_owned(),
        };
        let stream = tcp::first(peers, |peer| {
            let (tls, name) = (self.tls.clone(), name.clone());
            async move { tls.connect(name, tcp::connect(peer).await?).await }
        });
        stream.await
    }
}
