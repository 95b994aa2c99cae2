//! A Redis or Valkey server process of a test's own.

use std::time::{Duration, Instant};

use redis::{AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{
    process::{self, Flavor, Launch, Process},
    tls::Pki,
};

/// How long a server may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(15);

/// A server on a loopback port of its own; killed when dropped, and when the tests die.
#[derive(Debug)]
pub struct RedisServer {
    flavor: Flavor,
    args: Vec<String>,
    dir: TempDir,
    plain_port: u16,
    tls_port: Option<u16>,
    process: Process,
}

impl RedisServer {
    /// Starts an empty server without persistence.
    pub async fn start(flavor: Flavor) -> Self {
        Self::start_with(flavor, &[]).await
    }

    /// As [`start`](Self::start), with further arguments, which win over the harness's own.
    pub async fn start_with(flavor: Flavor, args: &[&str]) -> Self {
        Self::launch(Launch::node(flavor, None, args)).await
    }

    /// The same for a Redis with TLS; unless an argument says so, it asks for no certificate.
    ///
    /// Only the harness itself still gets in without TLS.
    pub async fn start_tls(pki: &Pki, args: &[&str]) -> Self {
        Self::launch(Launch::node(Flavor::Redis, Some(pki), args)).await
    }

    /// Starts an empty server of any kind.
    pub(super) async fn launch(launch: Launch<'_>) -> Self {
        let deadline = Instant::now() + START_DEADLINE;
        let flavor = launch.flavor;
        loop {
            let dir = TempDir::new().expect("a temporary directory");
            let plain_port = process::free_port();
            let tls_port = launch.tls.map(|_| process::free_port());
            let args = launch.command_line(&dir, plain_port, tls_port);
            let process = Process::new(process::spawn(&flavor.binary(), &args, &dir).await);
            let server = Self {
                flavor,
                args,
                dir,
                plain_port,
                tls_port,
                process,
            };
            // Otherwise somebody else took the port meanwhile: try the next one.
            if server.wait_until_ready(deadline).await {
                return server;
            }
        }
    }

    /// Starts the server again, empty, on the same port and with the same arguments.
    pub async fn restart(&self) {
        self.kill();
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let restarted = process::spawn(&self.flavor.binary(), &self.args, &self.dir).await;
            self.process.replace(restarted);
            if self.wait_until_ready(deadline).await {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The port on 127.0.0.1 for clients: the one for TLS, if there is one.
    pub fn port(&self) -> u16 {
        self.tls_port.unwrap_or(self.plain_port)
    }

    /// The server's URL, without credentials.
    pub fn url(&self) -> String {
        match self.tls_port {
            None => format!("redis://127.0.0.1:{}", self.plain_port),
            Some(port) => format!("rediss://localhost:{port}"),
        }
    }

    /// Whether the process is there and not frozen.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Stops the process with all its connections open, as if the machine hung.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Kills the process, frozen or not; when this returns it is gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Waits until the server answers, or returns `false` when its port is taken.
    async fn wait_until_ready(&self, deadline: Instant) -> bool {
        loop {
            if let Some(status) = self.process.exited() {
                if process::log(&self.dir).contains("Address already in use")
                    && Instant::now() < deadline
                {
                    return false;
                }
                self.fail(&format!("the server ended with {status}"));
            }
            // Whoever holds the port instead may never answer, while our own process ends.
            if let Ok(true) = timeout(Duration::from_millis(500), self.answers()).await {
                return true;
            }
            if Instant::now() > deadline {
                self.fail("the server does not answer");
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether this very process answers: the port may be another server's.
    async fn answers(&self) -> bool {
        let Ok(mut connection) = self.connect().await else {
            return false;
        };
        let command = redis::cmd("INFO").arg("server").take();
        let info: RedisResult<String> = command.query_async(&mut connection).await;
        let mine = format!("process_id:{}", self.process.id());
        info.is_ok_and(|info| info.lines().any(|line| line == mine))
    }

    /// Connects with time-outs that only a broken server reaches.
    pub(super) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let url = format!("redis://harness:harness@127.0.0.1:{}", self.plain_port);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(15)));
        Client::open(url)?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// What the server is, and its log.
    pub(super) fn described(&self) -> String {
        let (flavor, port, log) = (self.flavor, self.port(), process::log(&self.dir));
        format!("{flavor:?} on port {port}, its log:\n{log}")
    }

    /// Panics, with the server's log.
    pub(super) fn fail(&self, problem: &str) -> ! {
        panic!("{problem}: {}", self.described());
    }
}

#[cfg(test)]
mod tests {
    use crate::{Flavor, RedisServer, admin::query};
    use redis::Value;
    use std::{collections::BTreeSet, net::TcpStream, pin::pin, time::Duration};
    use tokio::time::timeout;

    #[tokio::test]
    async fn redis_is_redis() {
        let server = RedisServer::start(Flavor::Redis).await;
        let info: String = query(&mut server.client().await, &["INFO", "server"]).await;
        assert!(!info.contains("server_name:valkey"), "{info}");
    }

    #[tokio::test]
    async fn valkey_is_valkey() {
        let server = RedisServer::start(Flavor::Valkey).await;
        let info: String = query(&mut server.client().await, &["INFO", "server"]).await;
        assert!(info.contains("server_name:valkey"), "{info}");
    }

    #[tokio::test]
    async fn servers_started_at_once_are_apart() {
        let servers: Vec<_> = (0..8)
            .map(|_| tokio::spawn(RedisServer::start(Flavor::Redis)))
            .collect();
        let mut ports = BTreeSet::new();
        for server in servers {
            let server = server.await.expect("a started server");
            assert_eq!(server.cmd(&["INCR", "starts"]).await, Value::Int(1));
            assert!(ports.insert(server.port()) && server.port() < 50_000);
        }
    }

    #[tokio::test]
    async fn a_killed_server_is_gone_and_comes_back_empty() {
        let server = RedisServer::start(Flavor::Redis).await;
        server.cmd(&["SET", "key", "value"]).await;
        server.kill();
        assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err());
        server.restart().await;
        assert_eq!(server.cmd(&["EXISTS", "key"]).await, Value::Int(0));
    }

    #[tokio::test]
    async fn a_frozen_server_answers_nothing_until_it_is_thawed() {
        let server = RedisServer::start(Flavor::Redis).await;
        let mut client = server.client().await;
        server.freeze();
        let mut ping = pin!(query::<String>(&mut client, &["PING"]));
        timeout(Duration::from_millis(200), &mut ping)
            .await
            .expect_err("no answer");
        server.thaw();
        assert_eq!(ping.await, "PONG");
        server.freeze();
        server.restart().await;
        assert_eq!(
            server.cmd(&["PING"]).await,
            Value::SimpleString("PONG".into())
        );
    }
}
