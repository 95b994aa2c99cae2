//! Watches a connection: whether its server answers, and whether the server is still the primary.
//!
//! The watch sends `HELLO` about once a second, on the connection itself. The reply contains the role of the server,
//! and every account may call `HELLO`. A connection is *silent* if a reply to the watch is overdue and the server has
//! sent nothing in the meantime. A late reply counts as a reply, and the number of waiting operations does not matter.

use std::{pin::pin, sync::Arc, time::Duration};

use redis::{RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{link_config::LinkConfig, reports::Reporter};
use crate::{
    Error, ErrorKind,
    store::redis::wire::{address::Address, role::Role},
};

/// The pause between a reply of the server and the next question.
const POLL: Duration = Duration::from_secs(1);
/// The step in which silence is measured, so that a process that was suspended does not count its own suspension as
/// silence of the server.
const TICK: Duration = Duration::from_millis(250);
/// The duration of silence after which a connection becomes suspect.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// A connection to watch.
pub(crate) struct Watched {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) address: Address,
    pub(crate) role: Role,
    /// Whether the connection must not be used when its server is a replica.
    pub(crate) must_be_primary: bool,
    /// The longest time for which a command may block the connection.
    pub(crate) max_block: Duration,
}

/// A task that watches a connection. Dropping the handle ends the task.
pub(crate) struct PrimaryWatch(AbortHandle);

impl PrimaryWatch {
    /// Starts a watch, which reports the connection as suspect when it is silent, and as lost when its server is a
    /// replica or when `deposed` resolves.
    pub(crate) fn start(
        watched: Watched,
        config: &Arc<LinkConfig>,
        reporter: Reporter,
        deposed: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let config = Arc::clone(config);
        let watch = async move {
            let is_deposed = tokio::select! {
                () = deposed => true,
                is_deposed = watched.until_over(&config, &reporter) => is_deposed,
            };
            if is_deposed {
                reporter.lost();
            }
        };
        Self(tokio::spawn(watch).abort_handle())
    }
}

impl Watched {
    /// Asks the server until the watch is over. Returns `true` if the server has become a replica, and `false` if the
    /// connection is lost, which the connection itself reports.
    async fn until_over(self, config: &LinkConfig, reporter: &Reporter) -> bool {
        let max_silent_ticks = ticks(MAX_SILENCE + self.max_block);
        loop {
            sleep(POLL).await;
            let mut connection = self.connection.clone();
            let mut asking = pin!(self.ask(&mut connection, &config.probe));
            let answer = loop {
                match timeout(TICK, &mut asking).await {
                    Ok(answer) => break answer,
                    Err(_) if reporter.record_silent_tick(max_silent_ticks) => {
                        let silence = MAX_SILENCE + self.max_block;
                        self.note(config, &format!("no answer for {silence:?}"));
                        reporter.suspect();
                    }
                    Err(_) => {}
                }
            };
            reporter.record_reply();
            match answer {
                Ok(role) if role == Role::Replica && self.must_be_primary => {
                    self.note(config, "the primary has become a replica");
                    return true;
                }
                Ok(_) => {}
                Err(error) if error.is_io_error() => return false,
                // An error is a reply, too. The operations get the same error and act on it.
                Err(_) => {}
            }
        }
    }

    /// Asks for the role, or, if the server does not report one, reads a key.
    async fn ask(&self, connection: &mut MultiplexedConnection, probe: &str) -> RedisResult<Role> {
        match self.role {
            Role::Unknown => {
                let read = redis::cmd("GET").arg(probe).take();
                read.exec_async(connection).await?;
                Ok(Role::Unknown)
            }
            Role::Primary | Role::Replica => {
                let hello: Value = Role::question().query_async(connection).await?;
                Ok(Role::of(hello))
            }
        }
    }

    fn note(&self, config: &LinkConfig, what: &str) {
        let message = format!("{what}, at {}", self.address);
        let error = Error::new(ErrorKind::Unavailable, message);
        config.status.note(&error);
    }
}

fn ticks(time: Duration) -> u32 {
    let ticks = time.as_millis() / TICK.as_millis();
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

impl Drop for PrimaryWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{
            Mutex, PoisonError,
            atomic::{AtomicU64, Ordering},
        },
    };

    use redis::{AsyncConnectionConfig, RedisConnectionInfo};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        time::{Instant, sleep_until},
    };

    use super::*;
    use crate::store::redis::conn::reports::Reports;

    /// A server that answers every command with this role, so late.
    struct Server {
        role: Mutex<&'static str>,
        lateness: Mutex<Duration>,
        commands: AtomicU64,
    }

    impl Server {
        fn new(role: &'static str, lateness: Duration) -> Arc<Self> {
            Arc::new(Self {
                role: Mutex::new(role),
                lateness: Mutex::new(lateness),
                commands: AtomicU64::new(0),
            })
        }

        /// Each read is one command: the watch has only one on its way.
        async fn serve(self: Arc<Self>, mut stream: DuplexStream) {
            let mut command = [0; 1024];
            while stream.read(&mut command).await.is_ok_and(|read| read > 0) {
                self.commands.fetch_add(1, Ordering::Relaxed);
                let asked = Instant::now();
                // The lateness may change meanwhile.
                while asked.elapsed() < get(&self.lateness) {
                    sleep_until(asked + get(&self.lateness).min(asked.elapsed() + TICK)).await;
                }
                let role = get(&self.role);
                let reply = format!("%2\r\n+server\r\n+redis\r\n+role\r\n+{role}\r\n");
                if stream.write_all(reply.as_bytes()).await.is_err() {
                    break;
                }
            }
        }

        /// Lets a primary's connection to it be watched.
        async fn watched(self: &Arc<Self>, role: Role) -> (PrimaryWatch, Reporter, Reports) {
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(Arc::clone(self).serve(far));
            let info = RedisConnectionInfo::default().set_skip_set_lib_name();
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let connecting = MultiplexedConnection::new_with_config(&info, near, config);
            let (connection, driver) = connecting.await.unwrap();
            tokio::spawn(driver);
            let watched = Watched {
                connection,
                address: Address::parse("redis", 1).unwrap(),
                role,
                must_be_primary: true,
                max_block: Duration::ZERO,
            };
            let reports = Reports::new();
            let reporter = Reporter::new(&reports, 1, None);
            let watch = PrimaryWatch::start(
                watched,
                &LinkConfig::for_test(),
                reporter.clone(),
                pending(),
            );
            (watch, reporter, reports)
        }
    }

    fn get<T: Copy>(value: &Mutex<T>) -> T {
        *value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set<T>(place: &Mutex<T>, value: T) {
        *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_always_late_is_not_suspect() {
        let server = Server::new("master", MAX_SILENCE - TICK);
        let (_watch, reporter, reports) = server.watched(Role::Primary).await;
        sleep(Duration::from_secs(600)).await;
        assert!(!reports.is_suspect(1) && !reporter.has_lost());
        assert!(server.commands.load(Ordering::Relaxed) > 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_no_more_is_suspect_within_about_two_seconds() {
        let server = Server::new("master", Duration::ZERO);
        let (_watch, reporter, reports) = server.watched(Role::Primary).await;
        sleep(Duration::from_millis(3500)).await;
        assert!(!reports.is_suspect(1));
        set(&server.lateness, Duration::from_secs(3600));
        let start = Instant::now();
        reports.until_suspect(1).await;
        let took = start.elapsed();
        assert!(took <= POLL + MAX_SILENCE + TICK, "{took:?}");
        assert!(reporter.is_silent());
        assert!(!reporter.has_lost(), "it may answer yet");
        // A late reply ends the silence.
        set(&server.lateness, Duration::ZERO);
        sleep(Duration::from_secs(2)).await;
        assert!(!reporter.is_silent());
    }

    #[tokio::test(start_paused = true)]
    async fn replies_to_others_end_a_silence_too() {
        let server = Server::new("master", Duration::from_secs(3600));
        let (_watch, reporter, reports) = server.watched(Role::Primary).await;
        for _ in 0..1000 {
            sleep(Duration::from_millis(600)).await;
            reporter.record_reply();
        }
        assert!(!reports.is_suspect(1));
        reports.until_suspect(1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_becomes_a_replica_is_lost() {
        for role in ["replica", "slave"] {
            let server = Server::new("master", Duration::ZERO);
            let (_watch, reporter, reports) = server.watched(Role::Primary).await;
            sleep(Duration::from_secs(10)).await;
            assert!(!reporter.has_lost());
            set(&server.role, role);
            let start = Instant::now();
            reports.until_lost(1).await;
            let took = start.elapsed();
            assert!(took <= POLL + TICK, "{took:?}");
            assert!(reporter.has_lost());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_without_a_role_is_watched_for_answers() {
        let server = Server::new("replica", Duration::ZERO);
        let (_watch, reporter, reports) = server.watched(Role::Unknown).await;
        sleep(Duration::from_secs(10)).await;
        assert!(server.commands.load(Ordering::Relaxed) > 5);
        assert!(!reporter.has_lost() && !reports.is_suspect(1));
        set(&server.lateness, Duration::from_secs(3600));
        reports.until_suspect(1).await;
    }

    #[test]
    fn a_role_is_read_from_hello() {
        let hello = |reply: &str| Role::of(redis::parse_redis_value(reply.as_bytes()).unwrap());
        for (reply, role) in [
            ("%1\r\n+role\r\n+master\r\n", Role::Primary),
            ("%1\r\n$4\r\nrole\r\n$7\r\nreplica\r\n", Role::Replica),
            ("*2\r\n+role\r\n+slave\r\n", Role::Replica),
            ("%1\r\n+role\r\n+active-replica\r\n", Role::Primary),
            ("%2\r\n+modules\r\n*0\r\n+proto\r\n:3\r\n", Role::Unknown),
            ("-ERR unknown command 'HELLO'\r\n", Role::Unknown),
            ("+OK\r\n", Role::Unknown),
        ] {
            assert_eq!(hello(reply), role, "{reply:?}");
        }
    }
}
