//! The network addresses of servers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use tokio::{net::lookup_host, sync::Semaphore};
use tower::BoxError;

use super::address::Address;

/// The maximum number of look-ups of names in the process at the same time. Each takes a thread of the runtime, which has
/// a few hundred of them, until the system has answered, whether or not somebody still waits.
const MAX_LOOKUPS: usize = 16;
static LOOKUPS: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

type Resolving = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, BoxError>> + Send>>;

/// Finds the network addresses of servers.
#[derive(Clone, Default)]
pub(crate) enum Resolver {
    /// As the system does.
    #[default]
    System,
    /// As the application says.
    Custom(Arc<dyn Fn(Address) -> Resolving + Send + Sync>),
}

impl Resolver {
    pub(crate) fn custom<F, Fut, E>(resolve: F) -> Self
    where
        F: Fn(String, u16) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<SocketAddr>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::Custom(Arc::new(move |address| {
            let resolving = resolve(address.host, address.port);
            Box::pin(async move { resolving.await.map_err(Into::into) })
        }))
    }

    /// Whether this address may lead to another server at any time.
    pub(crate) fn may_change(&self, address: &Address) -> bool {
        match self {
            Self::System => address.is_name(),
            Self::Custom(_) => true,
        }
    }

    /// All network addresses of a server; at least one.
    pub(crate) async fn resolve(&self, address: &Address) -> io::Result<Vec<SocketAddr>> {
        let found = match self {
            Self::System => look_up(address).await,
            Self::Custom(resolve) => resolve(address.clone()).await.map_err(io::Error::other),
        };
        match found {
            Ok(found) if found.is_empty() => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the host has no address",
            )),
            found => found,
        }
    }
}

async fn look_up(address: &Address) -> io::Result<Vec<SocketAddr>> {
    let Address { host, port } = address.clone();
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    // In a task of its own, which keeps the permit for as long as the look-up has its thread.
    let lookup = tokio::spawn(async move {
        let found = lookup_host((host, port)).await;
        drop(permit);
        Ok(found?.collect())
    });
    lookup.await?
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use super::*;

    fn address(host: &str) -> Address {
        Address {
            host: host.to_owned(),
            port: 1,
        }
    }

    #[tokio::test]
    async fn a_name_waits_for_its_turn_and_an_ip_address_does_not() {
        let turns = LOOKUPS.acquire_many(MAX_LOOKUPS as u32).await.unwrap();
        for ip in ["127.0.0.1", "::1"] {
            let found = Resolver::System.resolve(&address(ip)).await.unwrap();
            assert_eq!(found, [SocketAddr::new(ip.parse().unwrap(), 1)]);
        }
        let name = address("localhost");
        let mut resolving = pin!(Resolver::System.resolve(&name));
        assert!(is_pending(resolving.as_mut()).await);
        drop(turns);
        assert!(!resolving.await.unwrap().is_empty());
        assert_eq!(LOOKUPS.available_permits(), MAX_LOOKUPS);
    }

    #[tokio::test]
    async fn no_address_is_an_error() {
        let nowhere = Resolver::custom(|_, _| async { Ok::<_, BoxError>(Vec::new()) });
        let error = nowhere.resolve(&address("a")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let fails = Resolver::custom(|host, _| async move { Err(format!("no {host}")) });
        let error = fails.resolve(&address("a")).await.unwrap_err();
        assert_eq!(error.to_string(), "no a");
        assert!(fails.may_change(&address("10.0.0.1")));
    }

    async fn is_pending(future: Pin<&mut impl Future>) -> bool {
        tokio::time::timeout(Duration::from_millis(50), future)
            .await
            .is_err()
    }
}
