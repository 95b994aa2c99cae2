//! The same check on other stores.

use super::{
    baseline,
    cpu::Cpu,
    harness::{Cluster, Flavor, RedisServer, SentinelSet},
    load::{COLUMNS, Load, many_threads},
    report::{Column, Report},
    rounds::{Rounds, Variant},
    system_under_test::{SystemUnderTest, USER},
};

/// Its place among the stores.
const CLUSTER: usize = 2;
/// Tasks, operations of all together, and rounds.
const LOADS: [(usize, usize, usize); 2] = [(1, 200, 151), (64, 6_400, 31)];

pub(crate) fn run(report: &mut Report) {
    report.group(
        "Other stores",
        "`check_token_or_update_user` on each; on Redis Cluster also in comparison with the pipeline by hand, on one \
         connection to the right node.",
    );
    let runtime = many_threads();
    let redis = runtime.block_on(RedisServer::start(Flavor::Redis));
    let sentinel = runtime.block_on(SentinelSet::start());
    let cluster = runtime.block_on(Cluster::start(Flavor::Redis));
    #[cfg(feature = "mysql")]
    let maria = runtime.block_on(super::mysql::start());

    let on_redis = |url: String| runtime.block_on(SystemUnderTest::on_redis(&url));
    let on_cluster = on_redis(cluster.url());
    let stores = [
        ("Redis", on_redis(redis.url())),
        ("Redis Sentinel", on_redis(sentinel.url())),
        ("Redis Cluster", on_cluster.clone()),
        #[cfg(feature = "mysql")]
        ("MariaDB", runtime.block_on(super::mysql::subject(&maria))),
    ];
    let node = runtime.block_on(cluster.primary_of(&baseline::keys(USER)[0]));
    let connection = runtime.block_on(baseline::connect(&node.url()));
    // Not every store has one server, whose time could be told.
    let columns: &[Column] = &COLUMNS[..COLUMNS.len() - 1];
    for (tasks, operations, rounds) in LOADS {
        let load = &Load {
            runtime: &runtime,
            tasks,
            operations,
            client: Cpu::Own,
            server: Cpu::Unknown,
        };
        let mut variants = Vec::new();
        for (name, subject) in &stores {
            let checks = || load.run(|laps| subject.checks(laps));
            variants.push(Variant::new(*name, checks));
        }
        let baseline = || load.run(|laps| baseline::checks(&connection, &on_cluster, laps));
        variants.push(Variant::new("pipeline by hand", baseline));
        let rounds = Rounds::measure(rounds, variants);
        let all: Vec<_> = (0..stores.len()).collect();
        report.table(&format!("{tasks} at a time"), columns, &rounds.only(&all));
        let cluster = rounds.only(&[stores.len(), CLUSTER]);
        report.table(&format!("Cluster, {tasks} at a time"), columns, &cluster);
    }
    #[cfg(feature = "mysql")]
    super::mysql::sizes(report, &runtime, &maria);
}
