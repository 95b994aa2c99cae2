#[cfg(not(feature = "redis-tls"))]
use super::config_error;
use crate::Error;
use crate::store::redis::wire::dial::Dialer;

/// PEM texts.
#[derive(Clone, Default)]
pub(super) struct Tls {
    pub(super) roots: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    pub(super) fn is_set(&self) -> bool {
        self.roots.is_some() || self.client.is_some()
    }

    /// The dialer, with TLS if that is wanted.
    pub(super) fn secure(&self, dialer: Dialer, tls: bool) -> Result<Dialer, Error> {
        if !tls {
            return Ok(dialer);
        }
        #[cfg(feature = "redis-tls")]
        return Ok(dialer.with_tls(rustls::client_config(self)?));
        #[cfg(not(feature = "redis-tls"))]
        Err(config_error(
            "TLS to Redis needs the feature `redis-tls` of this crate",
        ))
    }
}

#[cfg(feature = "redis-tls")]
mod rustls;
