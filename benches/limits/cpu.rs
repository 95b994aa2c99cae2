//! Time on the CPU, which does not count what other processes take.

use std::time::Duration;

use nix::{
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use redis::{Client, InfoDict};

use super::harness::RedisServer;

/// Whose time counts.
#[derive(Clone, Copy)]
pub(crate) enum Cpu {
    /// All threads of this process.
    Own,
    /// The same without the thread that asks.
    OtherThreads,
    Process(ClockId),
    /// Not measured.
    Unknown,
}

impl Cpu {
    pub(crate) fn of(server: &RedisServer) -> Self {
        let pid = info(server, "server", "process_id").parse().unwrap();
        Self::Process(clock_getcpuclockid(Pid::from_raw(pid)).expect("the server has a clock"))
    }

    /// Seconds since the start of the process.
    pub(crate) fn seconds(self) -> f64 {
        let read = |clock| Duration::from(clock_gettime(clock).expect("a clock")).as_secs_f64();
        let own = ClockId::CLOCK_PROCESS_CPUTIME_ID;
        match self {
            Self::Own => read(own),
            Self::OtherThreads => read(own) - read(ClockId::CLOCK_THREAD_CPUTIME_ID),
            Self::Process(clock) => read(clock),
            Self::Unknown => f64::NAN,
        }
    }
}

/// A field of what a server tells of itself.
pub(crate) fn info(server: &RedisServer, section: &str, field: &str) -> String {
    let mut connection = Client::open(server.url())
        .unwrap()
        .get_connection()
        .unwrap();
    let info: InfoDict = redis::cmd("INFO")
        .arg(section)
        .query(&mut connection)
        .unwrap();
    info.get(field).expect("a field of INFO")
}
