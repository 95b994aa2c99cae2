use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tower_bearer_session::RedisStore;

use super::{super::eventually, Manager, everything_works, manager, replicated, sessions_key};
use crate::harness::{Cluster, Flavor};

/// While one primary is away, dead or hung, the users of the others notice nothing, if the cluster is told to go on
/// without full coverage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_other_primaries_notice_nothing() {
    let coverage = ["--cluster-require-full-coverage", "no"];
    let cluster = Cluster::start_with(Flavor::Redis, None, &coverage).await;
    // Long enough for a busy machine, and too short to sit the failover out.
    let deadline = Duration::from_millis(1500);
    let store = RedisStore::builder(cluster.url()).deadline(deadline);
    let manager = manager(store.connect().await.unwrap());
    for hung in [false, true] {
        let old = cluster.primary_of(&sessions_key("al")).await;
        let (stop, slowest) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut others = JoinSet::new();
        for user in ["bo", "cy", "ed", "gus"] {
            let primary = cluster.primary_of(&sessions_key(user)).await;
            assert_ne!(primary.port(), old.port());
            let (manager, stop, slowest) =
                (manager.clone(), Arc::clone(&stop), Arc::clone(&slowest));
            others.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    everything_works(&manager, user).await;
                    let took = u64::try_from(start.elapsed().as_millis()).unwrap();
                    slowest.fetch_max(took, Ordering::Relaxed);
                }
            });
        }
        let token = manager.set_token("al", None).await.unwrap();
        replicated(old, "al").await;
        match hung {
            false => old.kill(),
            true => old.freeze(),
        }
        let failed = failures_until_it_works(&manager, token.expose_secret()).await;
        println!("{failed} checks of its own users failed");
        match hung {
            false => old.restart().await,
            true => old.thaw(),
        }
        cluster.wait_until_whole().await;
        stop.store(true, Ordering::Relaxed);
        while let Some(user) = others.join_next().await {
            user.expect("nothing to notice");
        }
        println!("others: about 25 operations took {slowest:?} ms at most");
    }
}

async fn failures_until_it_works(manager: &Manager, token: &str) -> u64 {
    let mut failed = 0;
    let took = eventually("recovery", async || {
        let checked = manager.check_token(token).await;
        failed += u64::from(checked.is_err());
        checked.is_ok_and(|user| user.expect("a live session").id() == "al") && failed > 0
    })
    .await;
    println!("recovered after {took:?}");
    failed
}
