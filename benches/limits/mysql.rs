//! Checks on MariaDB.

use std::sync::Arc;

use tokio::runtime::Runtime;
use tower_bearer_session::MySqlStore;

use super::{
    cpu::Cpu,
    harness::MariaDb,
    load::{COLUMNS, Load},
    report::Report,
    rounds::{Rounds, Variant},
    system_under_test::{DEADLINE, SystemUnderTest, checks_in_turn},
};

/// Tasks, operations of all together, and rounds.
const LOADS: [(usize, usize, usize); 2] = [(1, 200, 61), (16, 3_200, 15)];
/// Who is checked, in turn.
const USERS: usize = 1000;

pub(crate) async fn start() -> MariaDb {
    MariaDb::start_with(&["--innodb-buffer-pool-size=512M"]).await
}

pub(crate) async fn subject(server: &MariaDb) -> SystemUnderTest {
    SystemUnderTest::on(store(server, "one_").await).await
}

/// Checks in tables of a thousand sessions and cached users, and of a million.
pub(crate) fn sizes(report: &mut Report, runtime: &Runtime, server: &MariaDb) {
    let populations =
        ["thousand_", "million_"].map(|prefix| runtime.block_on(population(server, prefix)));
    runtime.block_on(fill(server));
    for (tasks, operations, rounds) in LOADS {
        let load = &Load {
            runtime,
            tasks,
            operations,
            client: Cpu::Own,
            server: Cpu::Unknown,
        };
        let variants = ["a thousand sessions", "a million sessions"]
            .into_iter()
            .zip(&populations)
            .map(|(name, population)| {
                Variant::new(name, || load.run(|laps| checks_in_turn(population, laps)))
            });
        let rounds = Rounds::measure(rounds, variants.collect());
        let columns = &COLUMNS[..COLUMNS.len() - 1];
        report.table(&format!("MariaDB, {tasks} at a time"), columns, &rounds);
    }
}

/// Users who are logged in and cached.
async fn population(server: &MariaDb, prefix: &str) -> Arc<[SystemUnderTest]> {
    let one = SystemUnderTest::on(store(server, prefix).await).await;
    one.others(USERS).await.into()
}

async fn store(server: &MariaDb, prefix: &str) -> MySqlStore {
    let builder = MySqlStore::builder(server.url()).table_prefix(prefix);
    let store = builder.deadline(DEADLINE).connect().await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// The rest of the million.
async fn fill(server: &MariaDb) {
    let end = "4102444800000";
    for rows in [
        format!(
            "sessions (user_id, token_id, created_at, refreshed_at, expires_at) \
             SELECT CONCAT('user-', seq), UNHEX(MD5(seq)), 0, 0, {end}"
        ),
        format!("users SELECT CONCAT('user-', seq), REPEAT('x', 100), {end}"),
    ] {
        let fill = format!("INSERT INTO million_{rows} FROM seq_1001_to_1000000");
        server.sql(&fill).await;
    }
}
