use redis::ConnectionAddr;

#[cfg(not(feature = "redis-tls"))]
use super::config_error;
use crate::Error;

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

    /// What makes connections, with an address that does not count.
    pub(super) fn transport(&self, tls: bool) -> Result<ConnectionAddr, Error> {
        if !tls {
            return Ok(ConnectionAddr::Tcp(String::new(), 0));
        }
        #[cfg(feature = "redis-tls")]
        return rustls::transport(self);
        #[cfg(not(feature = "redis-tls"))]
        Err(config_error(
            "TLS to Redis needs the feature `redis-tls` of this crate",
        ))
    }
}

#[cfg(feature = "redis-tls")]
mod rustls;
