use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind, RedisResult,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
};

/// Where the server is that holds the sessions.
pub(super) enum Topology {
    /// Always at one address.
    Standalone {
        server: ConnectionInfo,
        /// A key to read before a connection is used.
        probe: String,
    },
}

/// The connections of one generation, all to the same place.
#[derive(Clone)]
pub(super) struct Connections {
    /// For what a request waits for.
    pub(super) main: MultiplexedConnection,
    /// For what may take long and must not stall a check.
    pub(super) bulk: MultiplexedConnection,
}

impl Topology {
    /// Connects anew. `on_lost` is called when one of the connections is lost, even if it is idle.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
        on_lost: impl Fn() + Clone + Send + Sync + 'static,
    ) -> RedisResult<Connections> {
        match self {
            Self::Standalone { server, probe } => {
                let client = Client::open(server.clone())?;
                let config = config.clone().set_push_sender(OnLost(on_lost));
                let connect = || client.get_multiplexed_async_connection_with_config(&config);
                let mut main = connect().await?;
                // A server that is loading its data, or does not let us read, is of no use.
                redis::cmd("GET").arg(probe).exec_async(&mut main).await?;
                let bulk = connect().await?;
                Ok(Connections { main, bulk })
            }
        }
    }
}

struct OnLost<F>(F);

impl<F: Fn() + Send + Sync + 'static> AsyncPushSender for OnLost<F> {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        if push.kind == PushKind::Disconnection {
            self.0();
        }
        Ok(())
    }
}
