//! How much memory a session takes in Redis.

use std::{thread, time::Duration};
use tokio::{runtime::Runtime, task::JoinSet};

use super::{
    cpu::info,
    harness::{Flavor, RedisServer},
    load::many_threads,
    report::{Column, Report},
    rounds::{Rounds, Variant},
    system_under_test::{manager, redis_store},
};

const TASKS: usize = 64;

const COLUMNS: [Column; 1] = [Column::median("bytes per session", 0, 0)];

/// Users, and sessions of each. The first are as many as fit into the hash tables, the second a few more.
const CROWDS: [(&str, usize, usize); 4] = [
    ("16,384 users with 1 session", 16_384, 1),
    ("16,448 users with 1 session", 16_448, 1),
    ("2,048 users with 10 sessions", 2_048, 10),
    ("64 users with 1,000 sessions", 64, 1_000),
];

pub(crate) fn run(report: &mut Report) {
    let runtime = many_threads();
    let variant = |(name, users, sessions)| {
        let runtime = &runtime;
        Variant::new(name, move || [bytes(runtime, users, sessions)])
    };
    let rounds = Rounds::once(CROWDS.into_iter().map(variant).collect());
    report.table("`used_memory`, without metadata", &COLUMNS, &rounds);
}

fn bytes(runtime: &Runtime, users: usize, sessions: usize) -> f64 {
    let server = runtime.block_on(RedisServer::start(Flavor::Redis));
    let manager = manager(runtime.block_on(redis_store(&server.url())));
    let log_in = async |users: usize| {
        let mut tasks = JoinSet::new();
        for task in 0..TASKS.min(users) {
            let manager = manager.clone();
            tasks.spawn(async move {
                for user in (task..users).step_by(TASKS) {
                    for _ in 0..sessions {
                        let user_id = format!("user-{user:06}");
                        manager.set_token(&user_id, None).await.unwrap();
                    }
                }
            });
        }
        tasks.join_all().await;
    };
    let used = || -> f64 {
        // Meanwhile the server shrinks its buffers.
        thread::sleep(Duration::from_secs(2));
        info(&server, "memory", "used_memory").parse().unwrap()
    };
    // Scripts and connections take memory as well.
    runtime.block_on(log_in(TASKS));
    runtime.block_on(server.cmd(&["FLUSHALL", "SYNC"]));
    let before = used();
    runtime.block_on(log_in(users));
    (used() - before) / (users * sessions) as f64
}
