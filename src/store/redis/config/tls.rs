#[cfg(not(feature = "redis-tls"))]
use super::config_error;
use crate::Error;
use crate::store::redis::wire::tls::Connector;

/// PEM texts, and a name.
#[derive(Clone, Default)]
pub(super) struct Tls {
    pub(super) roots: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
    /// The name in the certificates of the servers.
    pub(super) server_name: Option<String>,
}

impl Tls {
    pub(super) fn is_set(&self) -> bool {
        self.roots.is_some() || self.client.is_some() || self.server_name.is_some()
    }

    /// Whether a certificate that anybody can get for a host of his own is one of a server.
    pub(super) fn trusts_anybody(&self) -> bool {
        self.roots.is_none() && self.server_name.is_none()
    }

    /// Makes TLS connections, if that is wanted.
    pub(super) fn connector(&self, tls: bool) -> Result<Option<Connector>, Error> {
        if !tls {
            return Ok(None);
        }
        #[cfg(feature = "redis-tls")]
        return rustls::connector(self).map(Some);
        #[cfg(not(feature = "redis-tls"))]
        Err(config_error(
            "TLS to Redis needs the feature `redis-tls` of this crate",
        ))
    }
}

#[cfg(feature = "redis-tls")]
mod rustls;
