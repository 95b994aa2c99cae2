use std::{sync::Arc, time::Duration};

use redis::{PushInfo, PushKind, RedisResult, aio::MultiplexedConnection};
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    dial::Address, errors::has_code, link::LinkConfig, sentinel::Sentinels, supervisor::Reporter,
};
use crate::{Error, ErrorKind};

/// How often a master is asked whether it is one.
const POLL: Duration = Duration::from_secs(1);

/// Where the server is that a link connects to.
#[derive(Clone)]
pub(super) enum Source {
    /// Always at one address.
    Fixed(Address),
    /// Where the sentinels say.
    Sentinels(Arc<Sentinels>),
}

/// A new connection.
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) address: Address,
    /// The run of the server, if it was asked for.
    pub(super) run_id: Option<String>,
    /// Ends with the connection.
    pub(super) _guard: Option<Guard>,
}

/// A task that watches a connection.
pub(super) struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Source {
    /// The server that is meant at the moment, if that is known.
    pub(super) fn address(&self) -> Option<Address> {
        match self {
            Self::Fixed(address) => Some(address.clone()),
            Self::Sentinels(sentinels) => sentinels.known_master(),
        }
    }

    /// Connects anew. The reporter hears of it when the connection is lost, even if it is idle, or when its server
    /// is the master no more.
    pub(super) async fn connect(
        &self,
        config: &LinkConfig,
        reporter: &Reporter,
    ) -> Result<Connected, Error> {
        match self {
            Self::Fixed(address) => dial(config, address, reporter).await,
            Self::Sentinels(sentinels) => loop {
                let master = sentinels.master().await?;
                tokio::select! {
                    // A server that is the master no more may let us wait.
                    () = sentinels.moved_from(&master) => {}
                    connected = dial_master(config, &master, reporter, sentinels) => {
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

async fn dial(
    config: &LinkConfig,
    address: &Address,
    reporter: &Reporter,
) -> Result<Connected, Error> {
    let reporter = reporter.clone();
    let on_push = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            reporter.lost();
        }
    };
    let connecting = async {
        let mut connection = config.dialer.dial(address, on_push).await?;
        try_out(&mut connection, &config.probe).await?;
        let run_id = match config.confirm.is_some() {
            true => Some(run_id(&mut connection).await?),
            false => None,
        };
        Ok(Connected {
            connection,
            address: address.clone(),
            run_id,
            _guard: None,
        })
    };
    let connected = connecting.await;
    connected.map_err(|error| config.errors.convert_at(address, &error))
}

/// A connection that is not logged in, or whose server is loading its data, is of no use; and the client
/// does not tell.
async fn try_out(connection: &mut MultiplexedConnection, probe: &str) -> RedisResult<()> {
    match redis::cmd("GET").arg(probe).exec_async(connection).await {
        // A node of a cluster that does not hold the key.
        Err(error) if has_code(&error, &["MOVED", "ASK", "CLUSTERDOWN"]) => Ok(()),
        outcome => outcome,
    }
}

async fn dial_master(
    config: &LinkConfig,
    address: &Address,
    reporter: &Reporter,
    sentinels: &Arc<Sentinels>,
) -> Result<Connected, Error> {
    let mut connected = dial(config, address, reporter).await?;
    let role = role(&mut connected.connection).await;
    let role = role.map_err(|error| config.errors.convert_at(address, &error))?;
    if role != "master" {
        let message = format!("the master that the sentinels name is a {role}, at {address}");
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    sentinels.verify(address, &mut connected.connection).await?;
    let guard = guard(
        Arc::clone(sentinels),
        address.clone(),
        connected.connection.clone(),
        // A `WAIT` stops its connection.
        POLL + config.confirm.unwrap_or_default(),
        reporter.clone(),
    );
    connected._guard = Some(Guard(tokio::spawn(guard).abort_handle()));
    Ok(connected)
}

/// Reports the connection when its server is the master no more, whoever says so, or answers no more.
async fn guard(
    sentinels: Arc<Sentinels>,
    master: Address,
    mut connection: MultiplexedConnection,
    patience: Duration,
    reporter: Reporter,
) {
    loop {
        tokio::select! {
            () = sentinels.moved_from(&master) => break,
            () = sleep(POLL) => {}
        }
        tokio::select! {
            () = sentinels.moved_from(&master) => break,
            role = timeout(patience, role(&mut connection)) => match role {
                Ok(Ok(role)) if role != "master" => break,
                // A lost connection reports itself.
                Ok(_) => {}
                Err(_) => reporter.suspect(),
            },
        }
    }
    reporter.lost();
}

/// `ROLE`: `master`, `slave` or `sentinel`.
async fn role(connection: &mut MultiplexedConnection) -> RedisResult<String> {
    let mut reply: Vec<redis::Value> = redis::cmd("ROLE").query_async(connection).await?;
    let role = reply.drain(..).next().unwrap_or(redis::Value::Nil);
    Ok(redis::from_redis_value(role)?)
}

async fn run_id(connection: &mut MultiplexedConnection) -> RedisResult<String> {
    let info = redis::cmd("INFO").arg("server").take();
    let info: String = info.query_async(connection).await?;
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(run_id.unwrap_or_default().to_owned())
}
