//! How long the server keeps other clients waiting.

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use redis::{FromRedisValue, Value};
use tokio::runtime::Runtime;
use tower_bearer_session::{OnFull, TokenManager, TokenOptions, store::SessionLimit};

use super::{
    harness::{Flavor, RedisServer},
    population::Population,
    report::{Column, Report},
    rounds::{Rounds, Variant},
    system_under_test,
};

const ROUNDS: usize = 15;
const SESSIONS: usize = 100_000;
const LOGINS: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(200);

const COLUMNS: [Column; 5] = [
    Column::median("longest wait ms, median", 0, 2),
    Column::max("at most", 0, 2),
    Column::median("longest command ms, median", 1, 2),
    Column::max("at most", 1, 2),
    Column::median("took ms", 2, 0),
];

pub(crate) fn run(report: &mut Report, runtime: &Runtime) {
    let server = runtime.block_on(RedisServer::start(Flavor::Redis));
    let population = runtime.block_on(Population::of_sessions(&server.url(), SESSIONS));
    let user = &format!("user-with-{SESSIONS}");
    let manager = &population.manager.clone();
    let limited = |max, on_full| {
        let store = runtime.block_on(system_under_test::redis_store(&server.url()));
        let builder = TokenManager::builder(store).session_limit(max, on_full);
        builder.build().unwrap()
    };
    let [few, full, rejecting]: [TokenManager; 3] = [
        limited(10, OnFull::EvictOldest),
        limited(SessionLimit::MAX, OnFull::EvictOldest),
        limited(SessionLimit::MAX, OnFull::Reject),
    ];
    let population = RefCell::new(population);
    // Gives another user so many sessions, and no others.
    let fill = |sessions: usize, live: bool| {
        runtime
            .block_on(manager.delete_user_tokens("another"))
            .unwrap();
        let mut population = population.borrow_mut();
        runtime.block_on(population.log_in_for("another", sessions, live));
    };
    let log_in = |manager: &TokenManager| {
        let login = manager.set_token_with("another", TokenOptions::new());
        runtime.block_on(login).map(|issued| issued.evicted.len())
    };
    let cmd = |args: &[&str]| runtime.block_on(server.cmd(args));
    cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "20"]);
    cmd(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
    let waits = |work: &mut dyn FnMut()| {
        cmd(&["SLOWLOG", "RESET"]);
        let pings = Pings::start(server.port());
        let start = Instant::now();
        work();
        let took = start.elapsed();
        [
            pings.stop(),
            longest_command(&cmd(&["SLOWLOG", "GET", "-1"])),
            took,
        ]
        .map(|time| time.as_secs_f64() * 1e3)
    };
    let variants = vec![
        Variant::new("nothing", || waits(&mut || thread::sleep(PAUSE))),
        Variant::new("a client that computes", || waits(&mut compute)),
        Variant::new("1,000 logins and logouts", || {
            waits(&mut || {
                for _ in 0..LOGINS {
                    let token = runtime.block_on(manager.set_token(user, None)).unwrap();
                    let deleting = manager.delete_user_token(user, token.id());
                    assert!(runtime.block_on(deleting).unwrap());
                }
            })
        }),
        Variant::new("listing", || {
            waits(&mut || {
                let listed = runtime.block_on(manager.list_user_tokens(user)).unwrap();
                assert_eq!(listed.len(), SESSIONS);
            })
        }),
        Variant::new("deleting all", || {
            fill(SESSIONS, true);
            waits(&mut || {
                let deleting = manager.delete_user_tokens("another");
                runtime.block_on(deleting).unwrap();
                // The server frees the memory later.
                thread::sleep(PAUSE);
            })
        }),
        Variant::new("deleting all but one", || {
            fill(SESSIONS, true);
            let kept = runtime
                .block_on(manager.set_token("another", None))
                .unwrap();
            waits(&mut || {
                let deleting = manager.delete_other_user_tokens("another", kept.id());
                runtime.block_on(deleting).unwrap();
                thread::sleep(PAUSE);
            })
        }),
        Variant::new("a login at a full limit of 1,000", || {
            fill(SessionLimit::MAX as usize, true);
            waits(&mut || assert_eq!(log_in(&full).unwrap(), 1))
        }),
        Variant::new("a login with a new limit of 10", || {
            fill(SESSIONS, true);
            waits(&mut || assert_eq!(log_in(&few).unwrap(), SESSIONS - 9))
        }),
        Variant::new("a login that is rejected", || {
            fill(SESSIONS, true);
            waits(&mut || assert!(log_in(&rejecting).is_err()))
        }),
        Variant::new("a login after 100,000 have expired", || {
            fill(SESSIONS, false);
            waits(&mut || assert_eq!(log_in(&few).unwrap(), 0))
        }),
    ];
    report.table(
        "Wait of another client, with 100,000 sessions",
        &COLUMNS,
        &Rounds::measure(ROUNDS, variants),
    );
}

/// By the server's own account, which does not count how long it waited for a CPU to begin.
fn longest_command(slowlog: &Value) -> Duration {
    let Value::Array(commands) = slowlog else {
        panic!("no slowlog: {slowlog:?}");
    };
    let micros = commands.iter().map(|command| match command {
        Value::Array(fields) => u64::from_redis_value_ref(&fields[2]).unwrap(),
        other => panic!("not in a slowlog: {other:?}"),
    });
    Duration::from_micros(micros.max().unwrap_or(0))
}

/// What the client of a long list does as well, and what has nothing to do with the server.
fn compute() {
    let start = Instant::now();
    while start.elapsed() < PAUSE {
        std::hint::spin_loop();
    }
}

/// A client that asks again and again, in a thread of its own.
struct Pings {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Pings {
    fn start(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        ping(&mut stream);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                longest = longest.max(ping(&mut stream));
                // Without it there would be no CPU left for the others.
                thread::sleep(Duration::from_micros(100));
            }
            longest
        });
        Self { stop, thread }
    }

    /// The longest wait.
    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the pings failed")
    }
}

fn ping(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    stream.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    start.elapsed()
}
