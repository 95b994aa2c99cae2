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

impl Topology {
    /// Connects anew. `on_lost` is called when the connection is lost, even if it is idle.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
        on_lost: impl Fn() + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Standalone { server, probe } => {
                let client = Client::open(server.clone())?;
                let config = config.clone().set_push_sender(OnLost(on_lost));
                let mut connection = client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?;
                // A connection that is not logged in, or whose server is loading its data, is of no use; and the
                // client does not tell.
                redis::cmd("GET")
                    .arg(probe)
                    .exec_async(&mut connection)
                    .await?;
                Ok(connection)
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
