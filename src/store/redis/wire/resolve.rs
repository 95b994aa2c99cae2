//! The network addresses of servers.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    net::lookup_host,
    sync::{Semaphore, watch},
};
use tower::BoxError;

use super::{address::Address, given};

/// The maximum number of look-ups of names for a store at the same time. Each takes a thread of the runtime, which has a
/// few hundred of them, until the system has answered, whether or not somebody still waits.
const MAX_LOOKUPS: usize = 16;
/// The maximum number of network addresses of a host.
const MAX_FOUND: usize = 256;

type Outcome = watch::Receiver<Option<Result<Vec<SocketAddr>, LookUpError>>>;

/// An error that several can have.
#[derive(Clone)]
struct LookUpError(io::ErrorKind, String);

/// The look-ups of a store.
pub(crate) struct LookUps {
    turns: Semaphore,
    /// Those that have begun, so that a name for which the system takes long has no more than one of the threads.
    begun: Mutex<BTreeMap<Address, Outcome>>,
}

/// A look-up that others can join until it is dropped.
struct LookUp {
    all: Arc<LookUps>,
    address: Address,
    outcome: watch::Sender<Option<Result<Vec<SocketAddr>, LookUpError>>>,
}

type Resolving = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, BoxError>> + Send>>;

/// Finds the network addresses of servers.
#[derive(Clone)]
pub(crate) enum Resolver {
    /// As the system does.
    System(Arc<LookUps>),
    /// As the application says.
    Custom(Arc<dyn Fn(Address) -> Resolving + Send + Sync>),
}

impl Resolver {
    pub(crate) fn system() -> Self {
        Self::System(Arc::new(LookUps {
            turns: Semaphore::new(MAX_LOOKUPS),
            begun: Mutex::default(),
        }))
    }

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
            Self::System(_) => address.is_name(),
            Self::Custom(_) => true,
        }
    }

    /// All network addresses of a server; at least one.
    pub(crate) async fn resolve(&self, address: &Address) -> io::Result<Vec<SocketAddr>> {
        let found = match self {
            Self::System(all) => all.look_up(address).await,
            Self::Custom(resolve) => {
                let (resolve, address) = (Arc::clone(resolve), address.clone());
                given::run("the resolver", async move { resolve(address).await }).await
            }
        };
        match found {
            Ok(found) if found.is_empty() => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the host has no address",
            )),
            Ok(found) if found.len() > MAX_FOUND => Err(io::Error::other(format!(
                "the host has {} addresses, more than {MAX_FOUND}",
                found.len()
            ))),
            found => found,
        }
    }
}

impl LookUps {
    async fn look_up(self: &Arc<Self>, address: &Address) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = address.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, address.port)]);
        }
        let mut outcome = self.begin_or_join(address);
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(found))) => Ok(found.clone()),
            Ok(Some(Err(LookUpError(kind, text)))) => Err(io::Error::new(*kind, text.clone())),
            Ok(None) | Err(_) => Err(io::Error::other("the look-up was interrupted")),
        }
    }

    fn begin_or_join(self: &Arc<Self>, address: &Address) -> Outcome {
        let (look_up, outcome) = {
            let mut begun = self.begun();
            if let Some(outcome) = begun.get(address) {
                return outcome.clone();
            }
            let (sender, outcome) = watch::channel(None);
            begun.insert(address.clone(), outcome.clone());
            let look_up = LookUp {
                all: Arc::clone(self),
                address: address.clone(),
                outcome: sender,
            };
            (look_up, outcome)
        };
        // In a task of its own, which goes on for as long as the look-up has its thread.
        tokio::spawn(look_up.run());
        outcome
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<Address, Outcome>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LookUp {
    async fn run(self) {
        let Address { host, port } = self.address.clone();
        // Never closed.
        let turn = self.all.turns.acquire().await;
        let found = lookup_host((host, port)).await;
        drop(turn);
        let found = found.map(Iterator::collect);
        let found = found.map_err(|error| LookUpError(error.kind(), error.to_string()));
        self.outcome.send_replace(Some(found));
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        self.all.begun().remove(&self.address);
    }
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
        let resolver = Resolver::system();
        let Resolver::System(all) = &resolver else {
            unreachable!("it is the system");
        };
        let turns = all.turns.acquire_many(MAX_LOOKUPS as u32).await.unwrap();
        for ip in ["127.0.0.1", "::1"] {
            let found = resolver.resolve(&address(ip)).await.unwrap();
            assert_eq!(found, [SocketAddr::new(ip.parse().unwrap(), 1)]);
        }
        let name = address("localhost");
        let mut resolving = pin!(resolver.resolve(&name));
        assert!(is_pending(resolving.as_mut()).await);
        // However often it is asked for, a name takes one turn.
        for _ in 0..MAX_LOOKUPS {
            assert!(is_pending(pin!(resolver.resolve(&name))).await);
        }
        assert_eq!(all.begun().len(), 1);
        drop(turns);
        assert!(!resolving.await.unwrap().is_empty());
        tokio::task::yield_now().await;
        assert!(all.begun().is_empty());
        assert_eq!(all.turns.available_permits(), MAX_LOOKUPS);
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
        let panics = Resolver::custom(|_, _| async { panic!("secret") as Result<_, BoxError> });
        let error = panics.resolve(&address("a")).await.unwrap_err();
        assert_eq!(error.to_string(), "the resolver has panicked");
        let many = vec![SocketAddr::from(([127, 0, 0, 1], 1)); MAX_FOUND + 1];
        let many =
            Resolver::custom(move |_, _| std::future::ready(Ok::<_, BoxError>(many.clone())));
        let error = many.resolve(&address("a")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the host has 257 addresses, more than 256"
        );
    }

    async fn is_pending(future: Pin<&mut impl Future>) -> bool {
        tokio::time::timeout(Duration::from_millis(50), future)
            .await
            .is_err()
    }
}
