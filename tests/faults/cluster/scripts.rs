use tokio::task::JoinSet;

use super::super::{Load, patient_store, serve};
use crate::harness::{Cluster, Flavor};

/// All nodes forget their scripts, all the time, and no request fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_are_flushed_under_load() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let server = serve(patient_store(&cluster.url()).await).await;
    let mut load = Load::start(&server).await;
    let mut flushing = JoinSet::new();
    for node in cluster.nodes() {
        let mut client = node.client().await;
        flushing.spawn(async move {
            let flush = redis::cmd("SCRIPT").arg("FLUSH").take();
            loop {
                flush.exec_async(&mut client).await.unwrap();
                // There are only so many processors.
                tokio::time::sleep(std::time::Duration::from_micros(200)).await;
            }
        });
    }
    for _ in 0..40 {
        load.runs().await;
        assert!(flushing.try_join_next().is_none());
    }
    drop(flushing);
    let failed = load.unavailable();
    load.finish().await;
    let (mut flushes, mut sent_again) = (0, 0);
    for node in cluster.nodes() {
        let calls = node.command_calls().await;
        flushes += calls.get("script|flush").unwrap_or(&0);
        sent_again += calls.get("eval").unwrap_or(&0);
    }
    println!("{failed} × 503; {flushes} flushes, {sent_again} scripts sent again");
    assert_eq!(failed, 0);
    assert!(sent_again > 10);
}
