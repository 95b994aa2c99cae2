//! Finding server binaries and running them.

use std::{
    env,
    fs::{self, OpenOptions},
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::Pki;

/// A server implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Debian's `redis-server`, from the `PATH`.
    Redis,
    /// A current Valkey, from the target directory.
    Valkey,
}

impl Flavor {
    /// The server's binary; panics when it is missing.
    pub(super) fn binary(self) -> PathBuf {
        match self {
            Self::Redis => on_path("redis-server", "redis-server"),
            Self::Valkey => {
                // Wherever the target directory is, cargo puts test executables into it.
                let tests = env::current_exe().expect("the path of the tests");
                let servers = tests.ancestors().map(|dir| dir.join("test-servers"));
                servers
                    .map(|dir| dir.join("valkey-server"))
                    .find(|file| file.is_file())
                    .unwrap_or_else(|| {
                        missing("`test-servers/valkey-server`, in the target directory")
                    })
            }
        }
    }
}

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch<'a> {
    pub(super) flavor: Flavor,
    pub(super) sentinel: bool,
    pub(super) tls: Option<&'a Pki>,
    /// Further arguments, which win over the harness's own.
    pub(super) args: &'a [&'a str],
}

impl<'a> Launch<'a> {
    /// A server that is no sentinel.
    pub(super) fn node(flavor: Flavor, tls: Option<&'a Pki>, args: &'a [&'a str]) -> Self {
        Self {
            flavor,
            sentinel: false,
            tls,
            args,
        }
    }

    /// The command line of a server that keeps everything in its own directory.
    pub(super) fn command_line(
        self,
        dir: &TempDir,
        port: u16,
        tls_port: Option<u16>,
    ) -> Vec<String> {
        let port = port.to_string();
        let path = dir.path().to_str().expect("a temporary directory in UTF-8");
        let mut args = vec!["--bind", "127.0.0.1", "--port", &port, "--dir", path];
        args.extend(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        args.extend(["--loglevel", "warning"]);
        // So that a test is free to change the default user, or to lock it out.
        args.extend(["--user", "harness", "on", ">harness", "~*", "&*", "+@all"]);
        let mut args: Vec<_> = args.into_iter().map(str::to_owned).collect();
        if let (Some(pki), Some(port)) = (self.tls, tls_port) {
            args.extend(pki.arguments(dir, port));
        }
        args.extend(self.args.iter().map(|&arg| arg.to_owned()));
        if self.sentinel {
            in_a_file(&args, dir)
        } else {
            args
        }
    }
}

/// The command line of a sentinel, which needs a file to write what it learns to.
fn in_a_file(args: &[String], dir: &TempDir) -> Vec<String> {
    let lines = args.iter().map(|arg| match arg.strip_prefix("--") {
        Some(directive) => format!("\n{directive}"),
        None => format!(" \"{arg}\""),
    });
    let file = dir.path().join("sentinel.conf");
    fs::write(&file, lines.collect::<String>()).expect("a written configuration");
    let file = file.into_os_string().into_string();
    vec![file.expect("a path in UTF-8"), "--sentinel".to_owned()]
}

/// Where a server's output goes.
fn log_file(dir: &TempDir) -> PathBuf {
    dir.path().join("server.log")
}

/// A loopback port that nothing listens on, below those which outgoing connections are given.
pub(super) fn free_port() -> u16 {
    // Test processes begin at different ports, and none hands out a port twice.
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(RandomState::new().hash_one(0) as u16));
    // A cluster node takes the port 10,000 above its own as well.
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (0..10_000)
        .map(|_| 12_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000)
        .find(|&port| is_free(port) && is_free(port + 10_000))
        .expect("a free port")
}

/// Starts a server, which the kernel kills when the tests die.
pub(super) async fn spawn(binary: &Path, args: &[String], dir: &TempDir) -> Child {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_file(dir))
        .expect("a log file");
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(binary)
        .args(args)
        .stdin(Stdio::null())
        .stderr(log.try_clone().expect("a second handle"))
        .stdout(log);
    let (reply, spawned) = oneshot::channel();
    SPAWNER.send((command, reply)).expect("an endless thread");
    match spawned.await.expect("an endless thread") {
        Ok(child) => child,
        Err(error) => panic!("cannot run `setpriv`, which is a part of util-linux: {error}"),
    }
}

/// A command, and where its process goes.
type Job = (Command, oneshot::Sender<io::Result<Child>>);

/// Starts every process in one endless thread, because the death signal is sent already when
/// the *thread* that started the process ends, and tests run in threads of their own.
static SPAWNER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    thread::spawn(move || {
        for (mut command, reply) in jobs {
            // A test that was cancelled meanwhile leaves nobody to kill its server.
            if let Err(Ok(mut orphan)) = reply.send(command.spawn()) {
                let _ = orphan.kill();
                let _ = orphan.wait();
            }
        }
    });
    sender
});

/// A server that runs, or did; killed when dropped.
#[derive(Debug)]
pub(super) struct Process(Mutex<Child>);

impl Process {
    pub(super) fn new(child: Child) -> Self {
        Self(Mutex::new(child))
    }

    /// Goes on with another one; the one before was killed.
    pub(super) fn replace(&self, child: Child) {
        *self.child() = child;
    }

    pub(super) fn id(&self) -> u32 {
        self.child().id()
    }

    /// How it ended, if it did.
    pub(super) fn exited(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a process of ours")
    }

    /// Whether it is there and not frozen.
    pub(super) fn is_running(&self) -> bool {
        self.state().is_some_and(|state| state != 'T')
    }

    /// Stops it with all its connections open, as if the machine hung; panics if it dies.
    pub(super) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        // Stopping takes a moment, in which the server would still answer.
        while self.state().expect("a server that was alive") != 'T' {
            thread::yield_now();
        }
    }

    /// Lets it go on.
    pub(super) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills it, frozen or not; when this returns it is gone.
    pub(super) fn kill(&self) {
        let mut child = self.child();
        child.kill().expect("a server that can be killed");
        child.wait().expect("a server that can be waited for");
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // Never signal a number which may belong to another process by now.
        let exited = child.try_wait().expect("a process of ours");
        assert!(exited.is_none(), "the server is not running");
        let pid = i32::try_from(child.id()).expect("a process id");
        signal::kill(Pid::from_raw(pid), signal).expect("a server that takes signals");
    }

    /// Its state in the kernel's letters, `T` for stopped; `None` when it is gone.
    fn state(&self) -> Option<char> {
        let mut child = self.child();
        if child.try_wait().expect("a process of ours").is_some() {
            return None;
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
        // It follows the name, which is in parentheses.
        let state = stat.rsplit(") ").next()?.chars().next();
        state.filter(|&state| state != 'Z')
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child();
        // A stopped process takes SIGKILL as well. Both fail only when it is gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What servers wrote to stdout and stderr, over all starts in this directory.
pub(super) fn log(dir: &TempDir) -> String {
    match fs::read(log_file(dir)) {
        Ok(log) => String::from_utf8_lossy(&log).into_owned(),
        Err(error) => format!("(no log: {error})"),
    }
}

/// A program of this Debian package; panics when it is missing.
pub(super) fn on_path(program: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    // Where servers are, and not always on the path of those who are not root.
    env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| missing(&format!("`{program}`, of the Debian package `{package}`")))
}

/// Panics: a missing server is never a reason to skip a test.
fn missing(what: &str) -> ! {
    panic!("this test needs {what}, which is missing: `tests/run` installs it")
}
