//! Simulations of overload: many clients and one server, on paused time.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    lookup::Lookups,
    simulated::{CAPACITY, DEADLINE, Random, Server, client, look_up},
};
use crate::{
    jitter,
    store::redis::conn::{link::Failure, link_config::LinkConfig},
};

const SECOND: Duration = Duration::from_secs(1);

/// How the lookups that began in one second have ended.
#[derive(Clone, Debug, Default)]
struct Tally {
    answered: u32,
    refused: u32,
    late: u32,
    /// The longest time of one that was answered.
    slowest: Duration,
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
        Self::at(Duration::ZERO, clients, sheds_load, seed).await
    }

    /// The way from the clients to the server is so long.
    async fn at(way: Duration, clients: usize, sheds_load: bool, seed: u64) -> Self {
        jitter::seeded::start(seed);
        let server = Arc::<Server>::default();
        server.set_way(way);
        let mut config = LinkConfig::for_test();
        let settings = Arc::get_mut(&mut config).unwrap();
        (settings.deadline, settings.sheds_load) = (DEADLINE, sheds_load);
        // Each is a process of its own.
        let clients: Vec<_> = (0..clients)
            .map(|_| client(&server, &config, &Arc::default()))
            .collect();
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
                let found = look_up(&client).await;
                let mut tallies = tallies.lock().unwrap();
                let tally = tallies.entry(second).or_default();
                match found {
                    Ok(_) => {
                        tally.answered += 1;
                        tally.slowest = tally.slowest.max(begun.elapsed());
                    }
                    // Without a connection they are refused as well.
                    Err(Failure::Overloaded | Failure::Down(_)) => tally.refused += 1,
                    Err(_) => tally.late += 1,
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
        self.sum(second..until)
    }

    fn sum(&self, seconds: Range<u64>) -> Tally {
        let mut sum = Tally::default();
        for (_, tally) in self.tallies.lock().unwrap().range(seconds) {
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
    const SECONDS: u32 = 3;
    let mut fleet = Fleet::new(clients, sheds_load, 1).await;
    fleet.load(times * CAPACITY, SECONDS * SECOND).await;
    let tally = fleet.since(0).await;
    println!("{clients} clients at {times} times the capacity: {tally:?}");
    if sheds_load {
        let settled = fleet.sum(2..u64::from(SECONDS));
        assert!(settled.late * 50 <= settled.answered, "{settled:?}");
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

/// A thousand processes, each with a fraction of a check in flight, need some seconds to find a balance. Then a server
/// does as much at ten times its capacity as at its capacity.
#[tokio::test(start_paused = true)]
async fn a_thousand_processes_find_a_balance() {
    const SECONDS: u32 = 8;
    const SETTLED: u64 = 4;
    let mut full = 0.0;
    for times in [1.0, 0.5, 2.0, 10.0] {
        let mut fleet = Fleet::new(1000, true, 1).await;
        fleet.load(times * CAPACITY, SETTLED as u32 * SECOND).await;
        // Until then a process may hear nothing for so long that it takes the server for dead.
        let reconnects = fleet.reconnects();
        fleet
            .load(times * CAPACITY, (SECONDS - SETTLED as u32) * SECOND)
            .await;
        let tally = fleet.since(SETTLED).await;
        let unsettled = fleet.sum(0..SETTLED);
        println!(
            "{times} times the capacity: {tally:?}, before {unsettled:?}, {reconnects} reconnects"
        );
        assert!(tally.late * 50 <= tally.answered, "{tally:?}");
        let much = f64::from(tally.answered) / f64::from(SECONDS - SETTLED as u32) / CAPACITY;
        if times == 1.0 {
            full = much;
        }
        assert!(much > 0.9 * times.min(1.0), "{much} at {times} times");
        assert!(
            much >= 0.8 * full * times.min(1.0),
            "{much} at {times} times"
        );
        assert_eq!(fleet.reconnects(), reconnects, "it is only slow");
        // It recovers within a second.
        fleet.load(CAPACITY / 2.0, SECOND).await;
        let after = fleet.since(u64::from(SECONDS) + 1).await;
        let failed = after.refused + after.late;
        assert!(failed * 50 <= after.answered, "{after:?}");
    }
}

/// Nor does it after minutes, when all replies that are known have waited for others.
#[tokio::test(start_paused = true)]
async fn goodput_does_not_fade() {
    for clients in [1, 30] {
        let mut fleet = Fleet::new(clients, true, 1).await;
        fleet.server.set_slowness(20.0);
        let capacity = CAPACITY / 20.0;
        fleet.load(2.0 * capacity, 180 * SECOND).await;
        let tally = fleet.since(120).await;
        println!("{clients} clients after two minutes: {tally:?}");
        assert!(
            f64::from(tally.answered) > 0.8 * 60.0 * capacity,
            "{tally:?}"
        );
        assert!(tally.late * 50 < tally.answered, "{tally:?}");
    }
}

/// After one slow reply of a quiet server, many may come at once.
#[tokio::test(start_paused = true)]
async fn a_burst_after_a_slow_reply_is_admitted() {
    for pause in [60, 300, 600] {
        let mut fleet = Fleet::new(1, true, 1).await;
        fleet.load(20.0, SECOND).await;
        fleet.server.pause(Duration::from_millis(pause));
        look_up(&fleet.clients[0]).await.ok();
        sleep(6 * SECOND).await;
        let mut burst = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let client = Arc::clone(&fleet.clients[0]);
            burst.spawn(async move { look_up(&client).await.is_ok() });
        }
        let admitted = burst.join_all().await;
        assert!(admitted.iter().all(|is| *is), "after {pause} ms");
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

/// Replies that always take long are not overload, however many wait for them.
#[tokio::test(start_paused = true)]
async fn a_long_way_is_not_overload() {
    for (way, rate) in [
        (60, 2000.0),
        (110, 400.0),
        (200, 400.0),
        (300, 200.0),
        (400, 100.0),
        (470, 100.0),
    ] {
        let mut fleet = Fleet::at(Duration::from_millis(way), 1, true, way).await;
        fleet.load(rate, 10 * SECOND).await;
        let tally = fleet.since(0).await;
        println!("{way} ms: {tally:?}");
        assert!(tally.refused * 100 < tally.answered, "{way} ms: {tally:?}");
    }
}

/// Nor is it when the way becomes longer, as after a failover to another region.
#[tokio::test(start_paused = true)]
async fn a_way_that_becomes_longer_is_not_overload() {
    let mut fleet = Fleet::new(1, true, 1).await;
    fleet.server.pause(DEADLINE / 2);
    fleet.load(200.0, 5 * SECOND).await;
    fleet.server.set_way(Duration::from_millis(120));
    fleet.load(200.0, 40 * SECOND).await;
    let tally = fleet.since(25).await;
    println!("{tally:?}");
    assert!(tally.refused * 100 < tally.answered, "{tally:?}");
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
