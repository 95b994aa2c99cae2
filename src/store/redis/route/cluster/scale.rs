//! A simulation of many processes and a large cluster, on paused time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    map::{Claim, Range, SLOTS},
    refresh::{MAX_ASKED, MAX_PAUSE, Nodes, POLL, Said, keep_up_to_date},
    slots::SlotMap,
};
use crate::{Error, ErrorKind, jitter, store::redis::wire::address::Address};

const CLIENTS: u32 = 500;
const PRIMARIES: u16 = 100;
/// The primary that dies, and the replica that takes over.
const DEAD: u16 = 0;
const SUCCESSOR: u16 = PRIMARIES;
const SECOND: Duration = Duration::from_secs(1);
/// When the primary dies, when its replica takes over, and until when each node has heard of that.
const DEATH: Duration = Duration::from_secs(10);
const FAILOVER: Duration = Duration::from_secs(25);
const HEARD: Duration = Duration::from_secs(27);
const END: Duration = Duration::from_secs(35);
/// The pause between two operations of a client on slots of the dead primary.
const OPERATIONS: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_millis(500);

struct Cluster {
    start: Instant,
    claims: [Vec<Claim>; 2],
    /// When each node hears of the failover.
    hears: Vec<Duration>,
    /// The requests for the map, by the tenth of a second and the node.
    requests: Mutex<BTreeMap<(u64, u16), u32>>,
    failures: AtomicU64,
}

/// A process.
struct Client {
    cluster: Arc<Cluster>,
    map: Mutex<Option<Arc<SlotMap<u16>>>>,
    outdated: Notify,
}

impl Cluster {
    fn start() -> Arc<Self> {
        let part = SLOTS / PRIMARIES;
        let claims = |successor| {
            let claims = (0..PRIMARIES).map(|number| {
                let (node, epoch) = match number {
                    DEAD if successor => (SUCCESSOR, 1000),
                    _ => (number, u64::from(number)),
                };
                let last = match number + 1 {
                    PRIMARIES => SLOTS - 1,
                    next => next * part - 1,
                };
                Claim {
                    first: number * part,
                    last,
                    epoch,
                    primary: address(node),
                }
            });
            claims.collect()
        };
        let hears = (0..=PRIMARIES).map(|node| match node {
            SUCCESSOR => FAILOVER,
            _ => FAILOVER + jitter::up_to(HEARD - FAILOVER),
        });
        Arc::new(Self {
            start: Instant::now(),
            claims: [claims(false), claims(true)],
            hears: hears.collect(),
            requests: Mutex::default(),
            failures: AtomicU64::new(0),
        })
    }

    /// What a node answers.
    async fn ask(&self, node: u16) -> Option<Said> {
        let tenth = self.start.elapsed().as_millis() as u64 / 100;
        *self
            .requests
            .lock()
            .unwrap()
            .entry((tenth, node))
            .or_default() += 1;
        if node == DEAD && self.start.elapsed() >= DEATH {
            sleep(TIMEOUT).await;
            return None;
        }
        sleep(Duration::from_millis(1)).await;
        let has_heard = self.start.elapsed() >= self.hears[usize::from(node)];
        Some((address(node), self.claims[usize::from(has_heard)].clone()))
    }

    /// The requests of each second, to all nodes.
    fn by_second(&self) -> Vec<u32> {
        let mut seconds = vec![0; END.as_secs() as usize + 1];
        for (&(tenth, _), requests) in &*self.requests.lock().unwrap() {
            seconds[tenth as usize / 10] += requests;
        }
        seconds
    }

    /// The most requests of a node in a tenth of a second, after all have asked the one that they are configured with.
    fn busiest(&self) -> u32 {
        let requests = self.requests.lock().unwrap();
        let later = requests.range((10, 0)..).map(|(_, requests)| *requests);
        later.max().unwrap_or(0)
    }
}

impl Nodes for Client {
    type Node = u16;

    fn known(&self) -> Option<Arc<SlotMap<u16>>> {
        self.map.lock().unwrap().clone()
    }

    async fn ask(self: Arc<Self>, node: u16) -> Option<Said> {
        self.cluster.ask(node).await
    }

    async fn ask_seeds(self: &Arc<Self>) -> Result<Vec<Said>, Error> {
        let said = self.cluster.ask(1).await;
        Ok(vec![
            said.ok_or(Error::new(ErrorKind::Unavailable, "no seed"))?,
        ])
    }

    fn adopt(&self, ranges: &[Range]) {
        let map = SlotMap::new(ranges, |address| address.port);
        *self.map.lock().unwrap() = Some(Arc::new(map));
    }

    fn failed(&self, error: Error) {
        panic!("{error}");
    }

    async fn outdated(&self) {
        self.outdated.notified().await;
    }
}

impl Client {
    /// Operates on slots of the primary that dies. Returns when it knows the new one.
    async fn operate(self: Arc<Self>) -> Duration {
        let start = self.cluster.start;
        sleep_until(start + DEATH + jitter::up_to(OPERATIONS)).await;
        loop {
            let map = self.known().unwrap();
            let (_, primary) = map.primary(0).unwrap();
            if *primary == SUCCESSOR {
                return start.elapsed();
            }
            self.cluster.failures.fetch_add(1, Ordering::Relaxed);
            self.outdated.notify_one();
            sleep(OPERATIONS).await;
        }
    }
}

fn address(node: u16) -> Address {
    Address {
        host: String::from("h"),
        port: node,
    }
}

/// Processes that all start in the same moment, and a primary that dies. A seed in `SIMULATION_SEED` replays another run.
#[tokio::test(start_paused = true)]
async fn the_map_is_asked_for_in_turns_and_never_in_step() {
    let seed = std::env::var("SIMULATION_SEED").map_or(1, |seed| seed.parse().unwrap());
    jitter::seeded::start(seed);
    let cluster = Cluster::start();
    let (mut refreshing, mut operating) = (JoinSet::new(), JoinSet::new());
    for _ in 0..CLIENTS {
        let client = Arc::new(Client {
            cluster: Arc::clone(&cluster),
            map: Mutex::default(),
            outdated: Notify::new(),
        });
        refreshing.spawn(keep_up_to_date(Arc::clone(&client)));
        operating.spawn(client.operate());
    }
    let mut recovered = operating.join_all().await;
    recovered.sort_unstable();
    sleep_until(cluster.start + END).await;

    let (seconds, busiest) = (cluster.by_second(), cluster.busiest());
    let [first, last] = [recovered.first(), recovered.last()].map(|at| *at.unwrap() - FAILOVER);
    println!(
        "seed {seed}: {CLIENTS} clients, {PRIMARIES} primaries; requests by second {seconds:?}, at most {busiest} of a \
         node in 0.1 s; {} operations failed; the successor was known after {first:?} to {last:?}",
        cluster.failures.load(Ordering::Relaxed),
    );
    // Each polls, and has one node asked in between, which does not answer if it is the dead one.
    let polls = MAX_ASKED as f64 / POLL.as_secs_f64();
    let asked_for = (1.0 + MAX_ASKED as f64 / f64::from(PRIMARIES)) / MAX_PAUSE.as_secs_f64();
    let allowed = f64::from(CLIENTS) * (polls + asked_for);
    for (second, &requests) in seconds.iter().enumerate() {
        let second = SECOND * second as u32;
        // They grow up to the longest pause first, and in the end everybody has news.
        let slack = match second {
            second if second + SECOND <= DEATH => 1.0,
            _ => 1.5,
        };
        assert!(
            f64::from(requests) <= slack * allowed,
            "{second:?}: {requests} > {slack} * {allowed}"
        );
    }
    let fair = allowed / f64::from(PRIMARIES) / 10.0;
    assert!(f64::from(busiest) <= 10.0 * fair, "{busiest} > 10 * {fair}");
    assert!(last <= HEARD - FAILOVER + POLL, "{last:?}");
}
