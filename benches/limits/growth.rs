//! What becomes of it all with many sessions and many users.

use tokio::runtime::Runtime;

use super::{
    bytes,
    harness::{Flavor, RedisServer},
    load::one_thread,
    population::Population,
    report::{Column, Report},
    rounds::{Rounds, Variant},
    stalls,
};

const ROUNDS: usize = 15;
const SESSIONS: [usize; 4] = [1, 10, 1_000, 100_000];
const USERS: [usize; 3] = [1_000, 100_000, 1_000_000];

const COLUMNS: [Column; 10] = [
    Column::median("check µs", 0, 1),
    Column::ratio("ratio", 0),
    Column::median("create µs", 1, 1),
    Column::ratio("ratio", 1),
    Column::median("refresh µs", 2, 1),
    Column::ratio("ratio", 2),
    Column::median("list µs", 3, 0),
    Column::ratio("ratio", 3),
    Column::median("delete all µs", 4, 0),
    Column::ratio("ratio", 4),
];
/// Check, create and refresh.
const SINGLE: usize = 6;

pub(crate) fn run(report: &mut Report) {
    report.group(
        "Growth on Redis",
        "One operation at a time, on one thread; ratios are to the smallest number. Of many users a thousand, spread \
         evenly, take turns. Longest waits are those of a `PING`, and depend on what else the machine does: compare them \
         with the first two rows; the longest command is what the server itself tells. Hash tables of Redis double at \
         powers of two: 16,384 users are the best case, and 16,448 the worst.",
    );
    let runtime = &one_thread();
    report.table("Sessions of one user", &COLUMNS, &sessions(runtime));
    report.table(
        "Users with one session",
        &COLUMNS[..SINGLE],
        &users(runtime),
    );
    stalls::run(report, runtime);
    bytes::run(report);
}

fn sessions(runtime: &Runtime) -> Rounds<5> {
    let server = runtime.block_on(RedisServer::start(Flavor::Redis));
    let variants = SESSIONS.map(|count| {
        let mut population = runtime.block_on(Population::of_sessions(&server.url(), count));
        let round = async move || {
            [
                population.check().await,
                population.create().await,
                population.refresh().await,
                population.list(count).await,
                population.delete_all(count).await,
            ]
        };
        variant(runtime, count, round)
    });
    Rounds::measure(ROUNDS, variants.into())
}

fn users(runtime: &Runtime) -> Rounds<3> {
    // Databases of one server have tables of their own; servers would not be scheduled alike.
    let server = runtime.block_on(RedisServer::start(Flavor::Redis));
    let variants = USERS.iter().enumerate().map(|(database, &count)| {
        let url = format!("{}/{database}", server.url());
        let mut population = runtime.block_on(Population::of_users(&url, count));
        let round = async move || {
            [
                population.check().await,
                population.create().await,
                population.refresh().await,
            ]
        };
        variant(runtime, count, round)
    });
    Rounds::measure(ROUNDS, variants.collect())
}

fn variant<'a, const N: usize>(
    runtime: &'a Runtime,
    count: usize,
    mut round: impl AsyncFnMut() -> [f64; N] + 'a,
) -> Variant<'a, N> {
    Variant::new(thousands(count), move || runtime.block_on(round()))
}

/// A number with its digits in groups.
fn thousands(number: usize) -> String {
    match number / 1_000 {
        0 => number.to_string(),
        rest => format!("{},{:03}", thousands(rest), number % 1_000),
    }
}
