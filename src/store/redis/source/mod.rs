//! The sources of the address that a link connects to.

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::{Pipeline, PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection};
use tokio::time::Instant;

use self::sentinel::Sentinels;
use super::{
    conn::{
        Connect,
        connected::Connected,
        heartbeat::{Beating, Heartbeat},
        link_config::LinkConfig,
        reports::Reporter,
        watch::{PrimaryWatch, Watched},
    },
    near::tracking::Tracking,
    wire::{
        address::Address,
        clock::{ServerClock, micros},
        fault::Fault,
        role::Role,
        run_id,
    },
};
use crate::{Error, ErrorKind};

pub(crate) mod sentinel;

/// The source of the address that a link connects to.
#[derive(Clone)]
pub(crate) enum Source {
    /// The primary behind one address, which may lead to another server at any time.
    Standalone(Address),
    /// The server at one address, in any role. A host name may lead to another server at any time.
    Fixed(Address),
    /// The master that the sentinels name.
    Sentinels(Arc<Sentinels>),
}

/// A new connection, and what its server has reported about itself.
struct Dialed {
    address: Address,
    connection: MultiplexedConnection,
    clock: ServerClock,
    round_trip: Duration,
    role: Role,
    run_id: Option<String>,
    /// Whether the server announces changes, if it was told to.
    announces: bool,
}

impl Connect for Source {
    fn address(&self) -> Option<Address> {
        match self {
            Self::Standalone(address) | Self::Fixed(address) => Some(address.clone()),
            Self::Sentinels(sentinels) => sentinels.known_master(),
        }
    }

    fn max_age(&self, config: &LinkConfig) -> Option<Duration> {
        match self {
            Self::Standalone(_) => Some(config.max_connection_age),
            Self::Fixed(address) => {
                let may_change = config.dialer.resolver.may_change(address);
                may_change.then_some(config.max_connection_age)
            }
            Self::Sentinels(_) => None,
        }
    }

    async fn connect(
        &self,
        config: &Arc<LinkConfig>,
        reporter: &Reporter,
        max_block: Duration,
    ) -> Result<Connected, Error> {
        match self {
            Self::Standalone(address) => {
                let dialed = dial(config, address, reporter).await?;
                if dialed.role == Role::Replica {
                    let message = format!("the server is a replica, at {address}");
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                Ok(dialed.watch(true, max_block, config, reporter, pending()))
            }
            Self::Fixed(address) => {
                let dialed = dial(config, address, reporter).await?;
                Ok(dialed.watch(false, max_block, config, reporter, pending()))
            }
            Self::Sentinels(sentinels) => loop {
                let master = sentinels.master().await?;
                tokio::select! {
                    // A former master may keep the connection waiting.
                    () = sentinels.moved_from(&master) => {}
                    connected = dial_master(config, &master, reporter, sentinels, max_block) => {
                        if connected.is_err() {
                            sentinels.ask_again();
                        }
                        return connected;
                    }
                }
            },
        }
    }
}

impl Dialed {
    /// Starts to watch the connection.
    fn watch(
        self,
        must_be_primary: bool,
        max_block: Duration,
        config: &Arc<LinkConfig>,
        reporter: &Reporter,
        deposed: impl Future<Output = ()> + Send + 'static,
    ) -> Connected {
        let watched = Watched {
            connection: self.connection.clone(),
            address: self.address.clone(),
            role: self.role,
            must_be_primary,
            max_block,
        };
        let tracking = reporter.tracking().filter(|_| self.announces);
        let heartbeat = tracking.map(|tracking| {
            let beating = Beating {
                connection: self.connection.clone(),
                address: self.address.clone(),
                config: Arc::clone(config),
                tracking: tracking.clone(),
            };
            Heartbeat::start(beating, reporter.clone())
        });
        Connected {
            connection: self.connection,
            address: self.address,
            clock: self.clock,
            round_trip: self.round_trip,
            run_id: self.run_id,
            role_watched: must_be_primary && self.role != Role::Unknown,
            _watch: PrimaryWatch::start(watched, config, reporter.clone(), deposed),
            _heartbeat: heartbeat,
        }
    }
}

async fn dial(
    config: &LinkConfig,
    address: &Address,
    reporter: &Reporter,
) -> Result<Dialed, Error> {
    let (tracking, reporter) = (reporter.tracking().cloned(), reporter.clone());
    let on_push = move |push: PushInfo| match push.kind {
        PushKind::Disconnection => reporter.lost(),
        PushKind::Invalidate => {
            if let Some(tracking) = reporter.tracking() {
                tracking.announced(&push.data);
            }
        }
        _ => {}
    };
    let dialing = async {
        let connection = config.dialer.dial(address, on_push).await?;
        probe(config, address, connection, tracking.as_ref()).await
    };
    let dialed = dialing.await;
    dialed.map_err(|error| config.errors.convert_at(address, &error))
}

/// Asks the server for its role and time, and reads a key: without the read, the client would not notice a missing
/// login or a server that is still loading its data.
async fn probe(
    config: &LinkConfig,
    address: &Address,
    mut connection: MultiplexedConnection,
    tracking: Option<&Tracking>,
) -> RedisResult<Dialed> {
    let mut questions = Pipeline::with_capacity(7);
    questions.add_command(Role::question());
    questions.cmd("TIME");
    questions.cmd("GET").arg(&config.probe);
    let asks_run = config.confirm.is_some() || tracking.is_some();
    if asks_run {
        questions.cmd("INFO").arg("server");
    }
    let tells_name = !config.is_nameless.load(Ordering::Relaxed);
    if tells_name {
        for (what, value) in [
            ("LIB-NAME", env!("CARGO_PKG_NAME")),
            ("LIB-VER", env!("CARGO_PKG_VERSION")),
        ] {
            questions.cmd("CLIENT").arg("SETINFO").arg(what).arg(value);
        }
    }
    if let Some(tracking) = tracking {
        tracking.add_start(&mut questions);
    }
    let asked = Instant::now();
    let answers = connection.send_packed_commands(&questions, 0, questions.len());
    let mut answers = answers.await?.into_iter();
    let round_trip = asked.elapsed();
    let mut next = || answers.next().unwrap_or(Value::Nil);
    let role = Role::of(next());
    let clock = ServerClock::new();
    clock.note(micros(redis::from_redis_value(next().extract_error()?)?));
    match next().extract_error() {
        Err(error) if Fault::of(&error).is_of_another_node() => {}
        read => drop(read?),
    }
    let run_id = match asks_run.then(|| next().extract_error()) {
        Some(info) => match info.and_then(|info| Ok(redis::from_redis_value::<String>(info)?)) {
            Ok(info) => Some(run_id(&info).unwrap_or_default().to_owned()),
            // A near-cache can do without.
            Err(_) if config.confirm.is_none() => None,
            Err(error) => return Err(error),
        },
        None => None,
    };
    if tells_name
        && [next(), next()]
            .map(Value::extract_error)
            .iter()
            .any(Result::is_err)
    {
        // Old servers do not know the command, and restricted accounts may not call it: do not repeat it each time.
        config.is_nameless.store(true, Ordering::Relaxed);
    }
    let announces = match next().extract_error() {
        _ if tracking.is_none() => false,
        Ok(_) => true,
        Err(error) => {
            let error = config.errors.convert_at(address, &error);
            config.status.note(&error);
            false
        }
    };
    Ok(Dialed {
        address: address.clone(),
        connection,
        clock,
        round_trip,
        role,
        run_id,
        announces,
    })
}

async fn dial_master(
    config: &Arc<LinkConfig>,
    address: &Address,
    reporter: &Reporter,
    sentinels: &Arc<Sentinels>,
    max_block: Duration,
) -> Result<Connected, Error> {
    let mut dialed = dial(config, address, reporter).await?;
    let claims = match dialed.role {
        Role::Primary => {
            sentinels.verify(address, &mut dialed.connection).await?;
            let (sentinels, master) = (Arc::clone(sentinels), address.clone());
            let deposed = async move { sentinels.moved_from(&master).await };
            return Ok(dialed.watch(true, max_block, config, reporter, deposed));
        }
        Role::Replica => "is a replica",
        Role::Unknown => "does not tell its role",
    };
    let message = format!("the master that the sentinels name {claims}, at {address}");
    Err(Error::new(ErrorKind::Unavailable, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_have_a_maximum_age_where_no_sentinel_announces_another_server() {
        let config = LinkConfig::for_test();
        let max_age = |source: Source| source.max_age(&config);
        let ages = Some(config.max_connection_age);
        for (host, at_a_node) in [("redis", ages), ("127.0.0.1", None)] {
            let address = Address::parse(host, 1).unwrap();
            assert_eq!(max_age(Source::Standalone(address.clone())), ages, "{host}");
            assert_eq!(max_age(Source::Fixed(address)), at_a_node, "{host}");
        }
    }
}
