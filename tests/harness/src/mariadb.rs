//! A MariaDB server process.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::unistd::Uid;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, Row,
    mysql::{MySqlConnectOptions, MySqlRow, MySqlSslMode},
};
use tempfile::TempDir;
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    process::{self, Process},
    tls::Pki,
};

/// How long a server may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(60);
const PACKAGE: &str = "mariadb-server";
/// An account that may do everything, and a database.
const INIT: &str = "CREATE DATABASE IF NOT EXISTS sessions;
CREATE USER IF NOT EXISTS 'app'@'%' IDENTIFIED BY 'hunter2';
GRANT ALL ON *.* TO 'app'@'%' WITH GRANT OPTION;
";

/// A server on a loopback port of its own, with its data in a directory of its own; killed when dropped, and when the
/// tests die.
#[derive(Debug)]
pub struct MariaDb {
    args: Vec<String>,
    dir: TempDir,
    port: u16,
    process: Process,
}

impl MariaDb {
    /// Starts a server without any tables of ours.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As [`start`](Self::start), with further arguments, which win over the harness's own.
    pub async fn start_with(args: &[&str]) -> Self {
        Self::launch(None, args).await
    }

    /// A server that speaks TLS to those who want it.
    pub async fn start_tls(pki: &Pki) -> Self {
        Self::launch(Some(pki), &[]).await
    }

    async fn launch(pki: Option<&Pki>, args: &[&str]) -> Self {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let dir = TempDir::new().expect("a temporary directory");
            let dir = spawn_blocking(move || {
                install(&dir);
                dir
            });
            let dir = dir.await.expect("a data directory");
            let port = process::free_port();
            let mut args = command_line(&dir, port, args);
            if let Some([ca, certificate, key]) = pki.map(|pki| pki.files(&dir)) {
                args.push(format!("--ssl-ca={ca}"));
                args.push(format!("--ssl-cert={certificate}"));
                args.push(format!("--ssl-key={key}"));
            }
            let process = Process::new(spawn(&args, &dir).await);
            let server = Self {
                args,
                dir,
                port,
                process,
            };
            // Otherwise somebody else took the port meanwhile: try the next one.
            if server.wait_until_ready(deadline).await {
                return server;
            }
        }
    }

    /// Starts the server again on the same port and data, with the same arguments.
    pub async fn restart(&self) {
        self.kill();
        self.process.replace(spawn(&self.args, &self.dir).await);
        let deadline = Instant::now() + START_DEADLINE;
        assert!(self.wait_until_ready(deadline).await, "the port is taken");
    }

    /// Where the stores connect to, with user and password.
    pub fn url(&self) -> String {
        format!("mysql://app:hunter2@127.0.0.1:{}/sessions", self.port)
    }

    /// The port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
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

    /// Ends all connections but those that are made to do so.
    pub async fn end_connections(&self) {
        let others = "SELECT ID FROM information_schema.PROCESSLIST \
                      WHERE USER = 'app' AND ID <> CONNECTION_ID()";
        for row in self.sql(others).await {
            let id: i64 = row.get(0);
            let mut connection = self.connect().await.expect("a connection");
            // It may have ended by itself.
            let kill = sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}")));
            let _ = kill.execute(&mut connection).await;
        }
    }

    /// Ends the connections of an account but for the three that began first.
    pub async fn end_some_connections(&self, user: &str) {
        let ids = format!(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{user}' ORDER BY ID LIMIT 3, 1000"
        );
        for row in self.sql(&ids).await {
            let id: i64 = row.get(0);
            let mut connection = self.connect().await.expect("a connection");
            // It may have ended by itself.
            let kill = sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}")));
            let _ = kill.execute(&mut connection).await;
        }
    }

    /// How many warnings the server has written into its log.
    pub fn warnings(&self) -> usize {
        self.log().matches("[Warning]").count()
    }

    /// The numbers of `SHOW GLOBAL STATUS`.
    pub async fn status(&self) -> BTreeMap<String, u64> {
        let rows = self.sql("SHOW GLOBAL STATUS").await;
        let numbers = rows.iter().filter_map(|row| {
            let number: String = row.get(1);
            Some((row.get(0), number.parse().ok()?))
        });
        numbers.collect()
    }

    /// The number in the only row that the statement returns.
    pub async fn number(&self, statement: &str) -> i64 {
        self.sql(statement).await[0].get(0)
    }

    /// Asks the server, past any store.
    pub async fn sql(&self, statement: &str) -> Vec<MySqlRow> {
        let mut connection = self.connect().await.expect("a connection");
        let statement = sqlx::raw_sql(AssertSqlSafe(statement));
        let rows = statement
            .fetch_all(&mut connection)
            .await
            .expect("an answer");
        // Otherwise the server counts it as aborted. It may have been told to stop.
        let _ = connection.close().await;
        rows
    }

    /// A connection of a test's own.
    pub async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let options = MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port)
            .username("app")
            .password("hunter2")
            .database("sessions")
            .ssl_mode(MySqlSslMode::Disabled);
        options.connect().await
    }

    /// Waits until the server answers, or returns `false` when its port is taken.
    async fn wait_until_ready(&self, deadline: Instant) -> bool {
        loop {
            if let Some(status) = self.process.exited() {
                if self.log().contains("Address already in use") && Instant::now() < deadline {
                    return false;
                }
                self.fail(&format!("the server ended with {status}"));
            }
            // Whoever holds the port instead may never answer, while our own process ends.
            if let Ok(true) = timeout(Duration::from_secs(2), self.answers()).await {
                return true;
            }
            if Instant::now() > deadline {
                self.fail("the server does not answer");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether this very server answers: the port may be another's.
    async fn answers(&self) -> bool {
        let Ok(mut connection) = self.connect().await else {
            return false;
        };
        let asked = sqlx::raw_sql("SELECT @@datadir")
            .fetch_one(&mut connection)
            .await;
        let path = self.dir.path().to_str().expect("a path in UTF-8");
        asked.is_ok_and(|row| row.get::<String, _>(0).starts_with(path))
    }

    fn log(&self) -> String {
        process::log(&self.dir)
    }

    /// Panics, with the server's log.
    fn fail(&self, problem: &str) -> ! {
        panic!(
            "{problem}: MariaDB on port {}, its log:\n{}",
            self.port,
            self.log()
        );
    }
}

/// Makes the tables of the server itself.
fn install(dir: &TempDir) {
    let mut command = Command::new(process::on_path("mariadb-install-db", PACKAGE));
    command
        .arg("--no-defaults")
        .arg(format!("--datadir={}", dir.path().join("data").display()))
        .args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        ])
        .args(SMALL)
        .args(as_root())
        // Servers remove each other's temporary files.
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null());
    let done = command.output().expect("a program that can be run");
    assert!(
        done.status.success(),
        "mariadb-install-db: {}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    fs::write(dir.path().join("init.sql"), INIT).expect("a written file");
}

/// The least memory and disk.
const SMALL: [&str; 2] = [
    "--innodb-log-file-size=16M",
    "--innodb-buffer-pool-size=64M",
];

fn command_line(dir: &TempDir, port: u16, args: &[&str]) -> Vec<String> {
    let path = dir.path().display();
    let mut line = vec![
        "--no-defaults".to_owned(),
        format!("--datadir={path}/data"),
        format!("--tmpdir={path}"),
        format!("--socket={path}/socket"),
        format!("--pid-file={path}/pid"),
        format!("--init-file={path}/init.sql"),
        format!("--port={port}"),
    ];
    line.extend(
        [
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--max-connections=2000",
            // What is acknowledged outlives the process, though not the machine.
            "--innodb-flush-log-at-trx-commit=2",
        ]
        .into_iter()
        .chain(SMALL)
        .chain(as_root())
        .chain(args.iter().copied())
        .map(str::to_owned),
    );
    line
}

/// Root must say that it means it.
fn as_root() -> Option<&'static str> {
    Uid::effective().is_root().then_some("--user=root")
}

async fn spawn(args: &[String], dir: &TempDir) -> std::process::Child {
    process::spawn(&process::on_path("mariadbd", PACKAGE), args, dir).await
}
