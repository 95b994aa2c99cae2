//! A Redis or Valkey server process of a test's own.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpStream,
    pin::pin,
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use redis::{AsyncConnectionConfig, Client, RedisResult, Value, aio::MultiplexedConnection};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{
    admin::query,
    process::{self, Flavor, Launch},
    tls::Pki,
};

/// How long a server may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(15);

/// A server on a loopback port of its own; killed when dropped, and when the tests die.
#[derive(Debug)]
pub(crate) struct RedisServer {
    flavor: Flavor,
    args: Vec<String>,
    dir: TempDir,
    plain_port: u16,
    tls_port: Option<u16>,
    process: Mutex<Child>,
}

impl RedisServer {
    /// Starts an empty server without persistence.
    pub(crate) async fn start(flavor: Flavor) -> Self {
        Self::start_with(flavor, &[]).await
    }

    /// As [`start`](Self::start), with further arguments, which win over the harness's own.
    pub(crate) async fn start_with(flavor: Flavor, args: &[&str]) -> Self {
        Self::launch(Launch::node(flavor, None, args)).await
    }

    /// The same for a Redis with TLS; unless an argument says so, it asks for no certificate.
    ///
    /// Only the harness itself still gets in without TLS.
    pub(crate) async fn start_tls(pki: &Pki, args: &[&str]) -> Self {
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
            let process = Mutex::new(process::spawn(flavor, &args, &dir).await);
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
    pub(crate) async fn restart(&self) {
        self.kill();
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let restarted = process::spawn(self.flavor, &self.args, &self.dir).await;
            *self.process() = restarted;
            if self.wait_until_ready(deadline).await {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The port on 127.0.0.1 for clients: the one for TLS, if there is one.
    pub(crate) fn port(&self) -> u16 {
        self.tls_port.unwrap_or(self.plain_port)
    }

    /// The server's URL, without credentials.
    pub(crate) fn url(&self) -> String {
        match self.tls_port {
            None => format!("redis://127.0.0.1:{}", self.plain_port),
            Some(port) => format!("rediss://localhost:{port}"),
        }
    }

    /// Whether the process is there and not frozen.
    pub(crate) fn is_running(&self) -> bool {
        self.state().is_some_and(|state| state != 'T')
    }

    /// Stops the process with all its connections open, as if the machine hung.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        // Stopping takes a moment, in which the server would still answer.
        loop {
            match self.state() {
                Some('T') => return,
                Some(_) => thread::yield_now(),
                None => self.fail("the server died when it was to be stopped"),
            }
        }
    }

    /// Lets a frozen server go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills the process, frozen or not; when this returns it is gone.
    pub(crate) fn kill(&self) {
        let mut process = self.process();
        process.kill().expect("a server that can be killed");
        process.wait().expect("a server that can be waited for");
    }

    /// Waits until the server answers, or returns `false` when its port is taken.
    async fn wait_until_ready(&self, deadline: Instant) -> bool {
        loop {
            let exited = self.process().try_wait().expect("a process of ours");
            if let Some(status) = exited {
                if self.log().contains("Address already in use") && Instant::now() < deadline {
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
        let mine = format!("process_id:{}", self.process().id());
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

    /// Sends a signal to the running server.
    fn signal(&self, signal: Signal) {
        let mut process = self.process();
        // Never signal a number which may belong to another process by now.
        let exited = process.try_wait().expect("a process of ours");
        assert!(exited.is_none(), "the server is not running");
        let pid = i32::try_from(process.id()).expect("a process id");
        signal::kill(Pid::from_raw(pid), signal).expect("a server that takes signals");
    }

    /// The state of the process in the kernel's letters, `T` for stopped; `None` when it is gone.
    fn state(&self) -> Option<char> {
        let mut process = self.process();
        if process.try_wait().expect("a process of ours").is_some() {
            return None;
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).ok()?;
        // It follows the name, which is in parentheses.
        let state = stat.rsplit(") ").next()?.chars().next();
        state.filter(|&state| state != 'Z')
    }

    /// The newest process.
    fn process(&self) -> MutexGuard<'_, Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server wrote to stdout and stderr, over all its starts.
    fn log(&self) -> String {
        match fs::read(process::log_file(&self.dir)) {
            Ok(log) => String::from_utf8_lossy(&log).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    /// What the server is, and its log.
    pub(super) fn described(&self) -> String {
        let (flavor, port, log) = (self.flavor, self.port(), self.log());
        format!("{flavor:?} on port {port}, its log:\n{log}")
    }

    /// Panics, with the server's log.
    pub(super) fn fail(&self, problem: &str) -> ! {
        panic!("{problem}: {}", self.described());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let mut process = self.process();
        // A stopped process takes SIGKILL as well. Both fail only when it is gone already.
        let _ = process.kill();
        let _ = process.wait();
    }
}

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
