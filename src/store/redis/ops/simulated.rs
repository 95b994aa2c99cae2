//! A server and the way to it, on paused time.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, split},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::lookup::{LookupKeys, Lookups};
use crate::{
    Error, ErrorKind, TokenId,
    jitter::seeded::splitmix64,
    store::redis::{
        conn::{
            Connect,
            connected::Connected,
            link::{Failure, Link},
            link_config::LinkConfig,
            reports::Reporter,
            watch::{PrimaryWatch, Watched},
        },
        wire::{address::Address, clock::ServerClock, role::Role},
    },
};

/// The lookups that the server can do in a second.
pub(super) const CAPACITY: f64 = 4000.0;
pub(super) const DEADLINE: Duration = Duration::from_millis(500);

/// A server that does one thing after the other.
#[derive(Default)]
pub(super) struct Server {
    pace: Mutex<Pace>,
    /// Whether it refuses connections.
    pub(super) refuses: AtomicBool,
    /// The number of those who are connecting, and of all connections that were begun.
    connecting: AtomicU32,
    pub(super) most_connecting: AtomicU32,
    pub(super) dialed: AtomicU32,
    /// Changes when all connections break.
    breaks: watch::Sender<u32>,
}

/// How fast a server is.
struct Pace {
    /// The end of what it has to do.
    busy_until: Instant,
    /// The time of one lookup.
    lookup: Duration,
    /// How long commands and replies are on their way, together.
    way: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            busy_until: Instant::now(),
            lookup: Duration::from_secs_f64(1.0 / CAPACITY),
            way: Duration::ZERO,
        }
    }
}

/// A replayable source of random numbers (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Server {
    /// When the reply to so many lookups that arrive now is there.
    fn done(&self, lookups: u32) -> Instant {
        let work = self.pace().lookup * lookups;
        self.pause(work);
        let pace = self.pace();
        pace.busy_until + pace.way
    }

    /// Lets lookups take so many times as long as usual.
    pub(super) fn set_slowness(&self, times: f64) {
        self.pace().lookup = Duration::from_secs_f64(times / CAPACITY);
    }

    pub(super) fn set_way(&self, way: Duration) {
        self.pace().way = way;
    }

    /// Lets it do nothing else for this time, after what it has to do.
    pub(super) fn pause(&self, time: Duration) {
        let mut pace = self.pace();
        pace.busy_until = pace.busy_until.max(Instant::now()) + time;
    }

    /// Lets it forget what it has to do.
    pub(super) fn resume(&self) {
        self.pace().busy_until = Instant::now();
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap()
    }

    /// Breaks all connections.
    pub(super) fn disconnect(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// Serves one connection until it breaks.
    async fn serve_until_broken(self: Arc<Self>, stream: DuplexStream) {
        let mut breaks = self.breaks.subscribe();
        tokio::select! {
            () = Arc::clone(&self).serve(stream) => {}
            _ = breaks.changed() => {}
        }
    }

    async fn serve(self: Arc<Self>, stream: DuplexStream) {
        let (mut reader, mut writer) = split(stream);
        let (replies, mut due) = mpsc::unbounded_channel::<(Instant, String)>();
        let writing = async move {
            while let Some((at, reply)) = due.recv().await {
                sleep_until(at).await;
                if writer.write_all(reply.as_bytes()).await.is_err() {
                    break;
                }
            }
        };
        let reading = self.read(&mut reader, replies);
        tokio::join!(writing, reading);
    }

    async fn read(
        &self,
        reader: &mut (impl AsyncReadExt + Unpin),
        replies: mpsc::UnboundedSender<(Instant, String)>,
    ) {
        let (mut buffer, mut received) = (vec![0; 64 * 1024], Vec::new());
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            received.extend_from_slice(&buffer[..read]);
            let (mut reply, mut lookups) = (String::new(), 0);
            while let Some((command, len)) = command(&received) {
                lookups += u32::from(command == "HGET");
                reply += match command.as_str() {
                    "TIME" => "*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n",
                    _ => "$-1\r\n",
                };
                received.drain(..len);
            }
            if !reply.is_empty() && replies.send((self.done(lookups), reply)).is_err() {
                break;
            }
        }
    }
}

/// The name of the first command, and its length, if all of it is there.
fn command(bytes: &[u8]) -> Option<(String, usize)> {
    let text = str::from_utf8(bytes).unwrap();
    let mut lines = text.split_inclusive("\r\n");
    let mut len = 0;
    let mut line = || {
        let line = lines.next().filter(|line| line.ends_with("\r\n"))?;
        len += line.len();
        Some(line.trim_end())
    };
    let parts: usize = line()?[1..].parse().unwrap();
    let mut name = None;
    for _ in 0..parts {
        line()?;
        name.get_or_insert(line()?.to_owned());
    }
    Some((name?, len))
}

/// Leads to the server.
pub(super) struct ToServer(Arc<Server>);

impl Connect for ToServer {
    async fn connect(
        &self,
        config: &Arc<LinkConfig>,
        reporter: &Reporter,
        max_block: Duration,
    ) -> Result<Connected, Error> {
        self.0.dialed.fetch_add(1, Ordering::Relaxed);
        let connecting = self.0.connecting.fetch_add(1, Ordering::Relaxed) + 1;
        self.0
            .most_connecting
            .fetch_max(connecting, Ordering::Relaxed);
        // A connection takes its time, and a refusal as well.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.0.connecting.fetch_sub(1, Ordering::Relaxed);
        if self.0.refuses.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "refused"));
        }
        let (near, far) = tokio::io::duplex(1024 * 1024);
        tokio::spawn(Arc::clone(&self.0).serve_until_broken(far));
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let settings = AsyncConnectionConfig::new().set_response_timeout(None);
        let connecting = MultiplexedConnection::new_with_config(&info, near, settings);
        let (connection, driver) = connecting.await.unwrap();
        tokio::spawn(driver);
        // A connection is used when the server has answered on it.
        let asked = Instant::now();
        let asking = redis::cmd("TIME").exec_async(&mut connection.clone()).await;
        asking.map_err(|_| Error::new(ErrorKind::Unavailable, "lost"))?;
        let round_trip = asked.elapsed();
        let address = Address::parse("redis", 1).unwrap();
        let watched = Watched {
            connection: connection.clone(),
            address: address.clone(),
            role: Role::Unknown,
            must_be_primary: false,
            max_block,
        };
        let never = std::future::pending();
        Ok(Connected {
            connection,
            address,
            clock: ServerClock::new(),
            round_trip,
            run_id: None,
            role_watched: false,
            _watch: PrimaryWatch::start(watched, config, reporter.clone(), never),
            _heartbeat: None,
        })
    }

    fn address(&self) -> Option<Address> {
        Address::parse("redis", 1)
    }

    fn max_age(&self, _: &LinkConfig) -> Option<Duration> {
        None
    }
}

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        splitmix64(&mut self.0)
    }

    /// A number between 0 and 1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Starts a client.
pub(super) fn client(
    server: &Arc<Server>,
    config: &Arc<LinkConfig>,
    dialing: &Arc<tokio::sync::Mutex<()>>,
) -> Arc<Lookups> {
    let source = ToServer(Arc::clone(server));
    let link = Link::start(config, source, dialing, Duration::ZERO, None);
    Arc::new(Lookups::new(link))
}

/// Looks up any session.
pub(super) async fn look_up(client: &Arc<Lookups>) -> Result<(), Failure> {
    let keys = LookupKeys {
        sessions: "tokens:{al}",
        token_id: &TokenId::from_bytes(&[1; 16]),
        user: "users:{al}",
    };
    let found = client.look_up(Instant::now() + DEADLINE, &keys).await;
    found.map(drop)
}
