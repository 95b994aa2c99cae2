//! TLS connections: the client library would take its cryptography from a default of the whole process.

use std::{io, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Makes TLS connections. Those of one connector resume each other's sessions.
#[derive(Clone)]
pub(crate) struct Connector(TlsConnector);

impl Connector {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// Connects to all addresses of the host at once, as the client library does; the first to finish its handshake is
    /// it.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        prepare: fn(&TcpStream) -> io::Result<()>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?
            .to_owned();
        let mut attempts = JoinSet::new();
        for address in lookup_host((host, port)).await? {
            let (connector, name) = (self.0.clone(), name.clone());
            attempts.spawn(async move {
                let stream = TcpStream::connect(address).await?;
                prepare(&stream)?;
                connector.connect(name, stream).await
            });
        }
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        while let Some(attempt) = attempts.join_next().await {
            outcome = attempt?;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}
