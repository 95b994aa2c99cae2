//! Simulations of faults: a few links and one server that fails at random, on paused time.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::simulated::{CAPACITY, DEADLINE, Random, Server, client, look_up};
use crate::{
    jitter,
    store::redis::conn::{link::Failure, link_config::LinkConfig},
};

const SECOND: Duration = Duration::from_secs(1);
/// After so long without faults all is well.
const RECOVERY: Duration = Duration::from_secs(4);

/// Plays one history; `seed` replays it.
async fn play(seed: u64) -> Result<u32, String> {
    let mut random = Random(seed);
    jitter::seeded::start(seed);
    let server = Arc::<Server>::default();
    let mut config = LinkConfig::for_test();
    Arc::get_mut(&mut config).ok_or("shared")?.deadline = DEADLINE;
    let dialing = Arc::default();
    let clients: Vec<_> = (0..=random.next() % 3)
        .map(|_| client(&server, &config, &dialing))
        .collect();
    let begun = Instant::now();
    let mut faults = 0;
    let mut lookups = JoinSet::new();
    while begun.elapsed() < 4 * SECOND {
        faults += 1;
        match random.next() % 6 {
            0 => server.refuses.store(true, Ordering::Relaxed),
            1 => server.refuses.store(false, Ordering::Relaxed),
            2 => server.disconnect(),
            3 => server.pause(SECOND.mul_f64(3.0 * random.fraction())),
            4 => server.resume(),
            // It is busy, and answers one after the other.
            _ => server.pause(SECOND.mul_f64(50.0 / CAPACITY)),
        }
        let until = Instant::now() + SECOND.mul_f64(random.fraction() / 2.0);
        while Instant::now() < until {
            let client = Arc::clone(&clients[random.next() as usize % clients.len()]);
            lookups.spawn(async move {
                let begun = Instant::now();
                // Any outcome will do, as long as it comes in time.
                let _ = look_up(&client).await;
                begun.elapsed()
            });
            sleep(SECOND.mul_f64(random.fraction() / 50.0)).await;
        }
    }
    for took in lookups.join_all().await {
        // Timers have a resolution of a millisecond.
        if took > DEADLINE + Duration::from_millis(2) {
            return Err(format!("a lookup took {took:?}"));
        }
    }
    if server.most_connecting.load(Ordering::Relaxed) > 1 {
        return Err("two links to one server connect at the same time".into());
    }
    let dialed = server.dialed.load(Ordering::Relaxed);
    let allowed = clients.len() as f64 * (5.0 + 25.0 * begun.elapsed().as_secs_f64());
    if f64::from(dialed) > allowed {
        return Err(format!(
            "{dialed} connections were begun, more than {allowed}"
        ));
    }

    server.refuses.store(false, Ordering::Relaxed);
    server.resume();
    // Nobody may ask in the meantime.
    let asks = random.next().is_multiple_of(2);
    let healed = Instant::now();
    while healed.elapsed() < RECOVERY {
        for client in clients.iter().filter(|_| asks) {
            let client = Arc::clone(client);
            tokio::spawn(async move { look_up(&client).await.is_ok() });
        }
        sleep(Duration::from_millis(50)).await;
    }
    for client in &clients {
        for _ in 0..20 {
            match look_up(client).await {
                Ok(()) => {}
                Err(Failure::Overloaded) => return Err("refused after the recovery".into()),
                Err(Failure::Deadline) => return Err("late after the recovery".into()),
                Err(_) => return Err("down after the recovery".into()),
            }
        }
        let live = client.link.in_use().ok_or("no connection")?;
        if live.admission.in_flight() != 0 {
            return Err("lookups are counted that are over".into());
        }
    }
    Ok(faults)
}

/// Each lookup ends in time, links connect one at a time and not too often, and some seconds after the last fault all is
/// well. `SIMULATION_SEED` replays one history, and `SIMULATIONS` plays more of them.
#[test]
fn supervised_links_recover_from_any_faults() {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap())
    };
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATIONS").unwrap_or(200),
    };
    let mut faults = 0;
    for seed in seeds {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        faults += runtime
            .block_on(play(seed))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    println!("{faults} faults");
}
