//! Checks on MariaDB.

use std::sync::Arc;

use tokio::runtime::Runtime;
use tower_bearer_session::{MySqlStore, TokenManager};

use super::{
    cpu::Cpu,
    harness::MariaDb,
    load::{COLUMNS, Laps, Load},
    report::Report,
    rounds::{Rounds, Variant},
    subject::{DEADLINE, Profile, Subject, manager},
};

/// Tasks, operations of all together, and rounds.
const LOADS: [(usize, usize, usize); 2] = [(1, 200, 61), (16, 3_200, 15)];
/// Who is checked, in turn.
const USERS: usize = 1000;

pub(crate) async fn start() -> MariaDb {
    MariaDb::start_with(&["--innodb-buffer-pool-size=512M"]).await
}

pub(crate) async fn subject(server: &MariaDb) -> Subject {
    Subject::on(store(server, "one_").await).await
}

/// Checks in tables of a thousand sessions and cached users, and of a million.
pub(crate) fn sizes(report: &mut Report, runtime: &Runtime, server: &MariaDb) {
    let crowds =
        ["thousand_", "million_"].map(|prefix| runtime.block_on(Crowd::new(server, prefix)));
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
            .zip(&crowds)
            .map(|(name, crowd)| Variant::new(name, || load.run(|laps| crowd.checks(laps))));
        let rounds = Rounds::measure(rounds, variants.collect());
        let columns = &COLUMNS[..COLUMNS.len() - 1];
        report.table(&format!("MariaDB, {tasks} at a time"), columns, &rounds);
    }
}

/// Users who are logged in and cached.
#[derive(Clone)]
struct Crowd {
    manager: TokenManager<Profile>,
    tokens: Arc<Vec<String>>,
}

impl Crowd {
    async fn new(server: &MariaDb, prefix: &str) -> Self {
        let manager = manager(store(server, prefix).await);
        let mut tokens = Vec::new();
        for user in 0..USERS {
            let token = manager
                .set_token(&format!("user-{user}"), None)
                .await
                .unwrap();
            tokens.push(token.expose_secret().to_owned());
        }
        let crowd = Self {
            manager,
            tokens: Arc::new(tokens),
        };
        for user in 0..USERS {
            crowd.check(user).await;
        }
        crowd
    }

    async fn check(&self, turn: usize) {
        let token = &self.tokens[turn * 7919 % USERS];
        let checked = self.manager.check_token_or_update_user(token, None).await;
        assert!(checked.unwrap().is_some());
    }

    fn checks(&self, mut laps: Laps) -> impl Future<Output = Laps> + use<> {
        let crowd = self.clone();
        async move {
            let mut turn = 0;
            while laps.next() {
                crowd.check(turn).await;
                turn += 1;
            }
            laps
        }
    }
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
        format!("sessions SELECT CONCAT('user-', seq), UNHEX(MD5(seq)), 0, 0, {end}, NULL, NULL"),
        format!("users SELECT CONCAT('user-', seq), REPEAT('x', 100), {end}"),
    ] {
        let fill = format!("INSERT INTO million_{rows} FROM seq_1001_to_1000000");
        server.sql(&fill).await;
    }
}
