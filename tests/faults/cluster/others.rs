use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tower_bearer_session::{RedisStore, Token};

use super::{super::eventually, Manager, everything_works, manager, replicated, sessions_key};
use crate::harness::{Cluster, Flavor};

/// On the second and the third primary; `al` is on the first.
const OTHERS: [&str; 4] = ["bo", "cy", "ed", "gus"];

/// While one primary is away, dead or hung, the users of the others notice nothing, if the cluster is told to go on
/// without full coverage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_other_primaries_notice_nothing() {
    let coverage = ["--cluster-require-full-coverage", "no"];
    let cluster = Cluster::start_with(Flavor::Redis, None, &coverage).await;
    // Nodes write down what happens to the cluster, and on a busy machine that may stop them for seconds.
    let store = RedisStore::builder(cluster.url()).deadline(Duration::from_secs(10));
    let manager = manager(store.connect().await.unwrap());
    let pair = [&cluster.nodes()[0], &cluster.nodes()[3]];
    for hung in [false, true] {
        let old = cluster.primary_of(&sessions_key("al")).await;
        let replica = pair[usize::from(old.port() == pair[0].port())];
        let others = Others::start(&manager);
        let token = manager.set_token("al", None).await.unwrap();
        replicated(old, "al").await;
        // For the time being nobody takes over, so that nobody can sit it out.
        replica.freeze();
        match hung {
            false => old.kill(),
            true => old.freeze(),
        }
        let nobody_takes_over = async {
            let took = others.go_on().await;
            println!("the others did everything ten times in {took:?}");
            replica.thaw();
        };
        let (failed, ()) = tokio::join!(failures(&manager, &token), nobody_takes_over);
        println!("{failed} checks of its own users failed");
        match hung {
            false => old.restart().await,
            true => old.thaw(),
        }
        cluster.wait_until_whole().await;
        others.finish().await;
    }
}

/// Waits until a token is accepted; tells how many checks failed before.
async fn failures(manager: &Manager, token: &Token) -> u64 {
    let mut failed = 0;
    let took = eventually("recovery", async || {
        let checked = manager.check_token(token.expose_secret()).await;
        failed += u64::from(checked.is_err());
        checked.is_ok_and(|user| user.expect("a live session").id() == "al")
    })
    .await;
    println!("recovered after {took:?}");
    failed
}

/// Users who do everything all the time, and panic when something does not work.
struct Others {
    users: JoinSet<()>,
    rounds: Arc<[AtomicU64; OTHERS.len()]>,
    stop: Arc<AtomicBool>,
}

impl Others {
    fn start(manager: &Manager) -> Self {
        let rounds = Arc::new(array::from_fn(|_| AtomicU64::new(0)));
        let (mut users, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for (number, user) in OTHERS.into_iter().enumerate() {
            let (rounds, stop) = (Arc::clone(&rounds), Arc::clone(&stop));
            let manager = manager.clone();
            users.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    everything_works(&manager, user).await;
                    let rounds: &[AtomicU64; OTHERS.len()] = &rounds;
                    rounds[number].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self {
            users,
            rounds,
            stop,
        }
    }

    /// Waits until each has done everything ten times more.
    async fn go_on(&self) -> Duration {
        let start = Instant::now();
        for rounds in &*self.rounds {
            let goal = rounds.load(Ordering::Relaxed) + 10;
            eventually("progress", async || rounds.load(Ordering::Relaxed) >= goal).await;
        }
        start.elapsed()
    }

    async fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(user) = self.users.join_next().await {
            user.expect("nothing to notice");
        }
    }
}
