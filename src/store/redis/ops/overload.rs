//! Simulations of overload: many clients and one server, on paused time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, split},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::lookup::{LookupKeys, Lookups};
use crate::{
    Error, TokenId,
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
const CAPACITY: f64 = 1000.0;
const DEADLINE: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

/// A server that does one thing after the other.
#[derive(Default)]
struct Server {
    busy_until: StdMutex<Option<Instant>>,
}

/// A replayable source of random numbers (splitmix64).
struct Random(u64);

/// How the lookups that began in one second have ended.
#[derive(Clone, Debug, Default)]
struct Tally {
    answered: u32,
    refused: u32,
    late: u32,
    /// The longest time of one that was answered.
    slowest: Duration,
}

impl Server {
    /// When so many lookups that arrive now are done.
    fn done(&self, lookups: u32) -> Instant {
        let mut busy = self
            .busy_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let begin = busy.map_or(Instant::now(), |busy| busy.max(Instant::now()));
        let end = begin + Duration::from_secs_f64(f64::from(lookups) / CAPACITY);
        *busy = Some(end);
        end
    }

    /// Lets it do nothing for this time.
    fn pause(&self, time: Duration) {
        let mut busy = self
            .busy_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *busy = Some(busy.map_or(Instant::now(), |busy| busy.max(Instant::now())) + time);
    }

    async fn serve(self: Arc<Self>, stream: DuplexStream) {
        let (mut reader, mut writer) = split(stream);
        let (replies, mut due) = mpsc::unbounded_channel::<(Instant, String)>();
        tokio::spawn(async move {
            while let Some((at, reply)) = due.recv().await {
                sleep_until(at).await;
                if writer.write_all(reply.as_bytes()).await.is_err() {
                    break;
                }
            }
        });
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
struct ToServer(Arc<Server>);

impl Connect for ToServer {
    async fn connect(
        &self,
        config: &Arc<LinkConfig>,
        reporter: &Reporter,
        max_block: Duration,
    ) -> Result<Connected, Error> {
        let (near, far) = tokio::io::duplex(1024 * 1024);
        tokio::spawn(Arc::clone(&self.0).serve(far));
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let settings = AsyncConnectionConfig::new().set_response_timeout(None);
        let connecting = MultiplexedConnection::new_with_config(&info, near, settings);
        let (connection, driver) = connecting.await.unwrap();
        tokio::spawn(driver);
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
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number between 0 and 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Clients of one server.
struct Fleet {
    server: Arc<Server>,
    config: Arc<LinkConfig>,
    clients: Vec<Arc<Lookups>>,
    random: Random,
    began: Instant,
    tallies: Arc<StdMutex<BTreeMap<u64, Tally>>>,
}

impl Fleet {
    async fn new(clients: usize, sheds_load: bool, seed: u64) -> Self {
        let server = Arc::<Server>::default();
        let mut config = LinkConfig::for_test();
        let settings = Arc::get_mut(&mut config).unwrap();
        (settings.deadline, settings.sheds_load) = (DEADLINE, sheds_load);
        let client = |_| {
            let source = ToServer(Arc::clone(&server));
            let link = Link::start(&config, source, &Arc::default(), Duration::ZERO, None);
            Arc::new(Lookups::new(link))
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        for client in &clients {
            client.link.ready().await.unwrap();
        }
        Self {
            server,
            clients,
            random: Random(seed),
            config,
            began: Instant::now(),
            tallies: Arc::default(),
        }
    }

    /// Lets lookups begin at random moments, so many in a second, each at a random client.
    async fn load(&mut self, rate: f64, time: Duration) {
        let end = Instant::now() + time;
        let mut next = Instant::now();
        loop {
            next += Duration::from_secs_f64(-(1.0 - self.random.fraction()).ln() / rate);
            if next >= end {
                sleep_until(end).await;
                return;
            }
            sleep_until(next).await;
            let client = self.random.next() as usize % self.clients.len();
            let client = Arc::clone(&self.clients[client]);
            let (tallies, second) = (Arc::clone(&self.tallies), self.second());
            tokio::spawn(async move {
                let begun = Instant::now();
                let keys = LookupKeys {
                    sessions: "tokens:{al}",
                    token_id: &TokenId::from_bytes(&[1; 16]),
                    user: "users:{al}",
                };
                let found = client.look_up(begun + DEADLINE, &keys).await;
                let mut tallies = tallies.lock().unwrap();
                let tally = tallies.entry(second).or_default();
                match found {
                    Ok(_) => {
                        tally.answered += 1;
                        tally.slowest = tally.slowest.max(begun.elapsed());
                    }
                    Err(Failure::Overloaded) => tally.refused += 1,
                    Err(Failure::Deadline) => tally.late += 1,
                    Err(_) => panic!("the server never fails"),
                }
            });
        }
    }

    fn second(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// The sum of the seconds from this one until now.
    async fn since(&self, second: u64) -> Tally {
        let until = self.second();
        sleep(SECOND).await;
        let mut sum = Tally::default();
        for (_, tally) in self.tallies.lock().unwrap().range(second..until) {
            sum.answered += tally.answered;
            sum.refused += tally.refused;
            sum.late += tally.late;
            sum.slowest = sum.slowest.max(tally.slowest);
        }
        sum
    }

    fn reconnects(&self) -> u64 {
        self.config.status.report(Vec::new(), None).reconnects
    }
}

/// The part of the capacity that comes in time at so many times the capacity.
async fn goodput(clients: usize, sheds_load: bool, times: f64) -> f64 {
    const SECONDS: u32 = 5;
    let mut fleet = Fleet::new(clients, sheds_load, 1).await;
    fleet.load(times * CAPACITY, SECONDS * SECOND).await;
    let tally = fleet.since(0).await;
    println!("{clients} clients at {times} times the capacity: {tally:?}");
    if sheds_load {
        assert_eq!(fleet.reconnects(), 0, "it is only slow");
        assert!(tally.slowest <= DEADLINE);
        // It has a second to recover, and the load is half of what it can do.
        fleet.load(CAPACITY / 2.0, SECOND).await;
        let after = fleet.since(u64::from(SECONDS) + 1).await;
        let failed = after.refused + after.late;
        assert!(failed * 50 <= after.answered, "{after:?}");
    }
    f64::from(tally.answered) / f64::from(SECONDS) / CAPACITY
}

/// At ten times its capacity a server does as much in time as at its capacity, the first second included.
#[tokio::test(start_paused = true)]
async fn goodput_does_not_collapse() {
    for clients in [1, 30] {
        let full = goodput(clients, true, 1.0).await;
        assert!(full > 0.9, "{full}");
        assert!(goodput(clients, true, 0.5).await > 0.45);
        for times in [2.0, 10.0] {
            let much = goodput(clients, true, times).await;
            assert!(
                much >= 0.8 * full,
                "{much} at {times} times, {full} at once"
            );
        }
    }
}

/// What the others show is not the server's doing.
#[tokio::test(start_paused = true)]
async fn without_load_shedding_it_does() {
    for clients in [1, 30] {
        let much = goodput(clients, false, 10.0).await;
        assert!(much < 0.2, "{much}");
    }
}

/// Processes whose first lookups alone are more than the server can do in their deadlines need some seconds, and find the
/// balance all the same.
#[tokio::test(start_paused = true)]
async fn a_crowd_finds_the_balance() {
    let mut fleet = Fleet::new(1000, true, 1).await;
    fleet.load(10.0 * CAPACITY, 20 * SECOND).await;
    let tally = fleet.since(12).await;
    println!("{tally:?}, {} reconnects", fleet.reconnects());
    assert!(f64::from(tally.answered) > 0.7 * 8.0 * 1000.0, "{tally:?}");
}

/// Where there is no overload, hardly anything is refused because the server pauses again and again.
#[tokio::test(start_paused = true)]
async fn pauses_are_not_overload() {
    let (mut answered, mut refused) = (0, 0);
    for seed in 0..20 {
        let mut fleet = Fleet::new(1 + seed as usize % 3, true, seed).await;
        for _ in 0..10 {
            let pause = Duration::from_millis(50 + fleet.random.next() % 350);
            fleet.server.pause(pause);
            let rate = 10.0 + fleet.random.fraction() * 200.0;
            fleet.load(rate, SECOND).await;
        }
        let tally = fleet.since(0).await;
        assert_eq!(
            (tally.late, fleet.reconnects()),
            (0, 0),
            "{seed}: {tally:?}"
        );
        answered += tally.answered;
        refused += tally.refused;
    }
    println!("{answered} answered, {refused} refused");
    assert!(
        answered > 10_000 && refused * 500 < answered,
        "{refused} of {answered}"
    );
}
