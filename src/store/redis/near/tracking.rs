//! The announcements of changes on one connection
//! ([client-side caching](https://redis.io/docs/latest/develop/reference/client-side-caching/)).

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{Pipeline, RedisError, RedisResult, Value};

use super::{
    Near,
    lease::{Lease, Renewal},
};
use crate::store::redis::wire::{Time, clock::micros, fault::Fault};

/// The announcements on one connection, and the lease that depends on them.
#[derive(Clone)]
pub(crate) struct Tracking {
    near: Arc<Near>,
    lease: Arc<Lease>,
}

/// The keys that a heartbeat reads. A node of a cluster answers with an error for those that it does not hold.
#[derive(Clone, Copy)]
pub(crate) struct Probes {
    first: u32,
    count: u32,
}

/// How many probes are tried at a time: nearly always one of them is at the node.
const MANY_PROBES: u32 = 64;
/// The probe after which the first one is tried again.
const LAST_PROBE: u32 = 1_000_000;

/// The reason why a lease is not renewed.
#[derive(Debug)]
pub(crate) enum NotRenewed {
    /// The server announces nothing on this connection.
    NotTracking,
    /// The server answered with an error.
    Error(RedisError),
}

impl Tracking {
    pub(crate) fn new(near: &Arc<Near>) -> Self {
        Self {
            near: Arc::clone(near),
            lease: Arc::new(Lease::new()),
        }
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Adds the command that lets the server announce changes. Those that this connection makes are announced, too: the
    /// caller of a write may have given up before the reply.
    pub(crate) fn add_start(&self, commands: &mut Pipeline) {
        let start = commands.cmd("CLIENT").arg("TRACKING").arg("ON");
        if !self.near.settings.is_per_key {
            start.arg("BCAST");
            for prefix in self.near.prefixes() {
                start.arg("PREFIX").arg(prefix);
            }
        }
    }

    /// Handles an announcement: the changed keys, or nil if that may be any.
    pub(crate) fn announced(&self, data: &[Value]) {
        for keys in data {
            match keys {
                Value::Array(keys) => {
                    for key in keys {
                        match key {
                            Value::BulkString(key) => self.near.invalidate_key(key),
                            _ => self.near.clear(),
                        }
                    }
                }
                _ => self.near.clear(),
            }
        }
    }

    /// The pause between two heartbeats.
    pub(crate) fn interval(&self) -> Duration {
        self.near.settings.max_staleness / 3
    }

    /// The commands of a heartbeat: the time, whether the server still announces changes, and keyed reads.
    pub(crate) fn heartbeat(&self, probes: &Probes) -> Pipeline {
        let mut commands = Pipeline::with_capacity(2 + probes.count as usize);
        commands.cmd("TIME");
        commands.cmd("CLIENT").arg("TRACKINGINFO");
        for n in 0..probes.count {
            commands.cmd("GET").arg(self.near.probe(probes.first + n));
        }
        commands
    }

    /// Now, for [`renew`](Self::renew).
    pub(crate) fn now(&self) -> u64 {
        self.near.now()
    }

    /// Renews the lease by the replies to a [`heartbeat`](Self::heartbeat) that was sent at this moment with these
    /// probes.
    pub(crate) fn renew(
        &self,
        sent: u64,
        replies: Vec<Value>,
        probes: &mut Probes,
    ) -> Result<(), NotRenewed> {
        let answered = self.near.now();
        let mut replies = replies.into_iter();
        let mut head = || replies.next().unwrap_or(Value::Nil);
        let (time, is_tracking) = read(head(), head()).map_err(NotRenewed::Error)?;
        if !is_tracking {
            self.end();
            return Err(NotRenewed::NotTracking);
        }
        probes.read(replies).map_err(NotRenewed::Error)?;
        let max_staleness = self.near.settings.max_staleness;
        match self.lease.renew(sent, answered, time, max_staleness) {
            // What changed before was announced to nobody here.
            Renewal::Began => self.near.wake_all(),
            Renewal::Lapsed => self.near.note_loss(),
            Renewal::Renewed | Renewal::Ended => {}
        }
        Ok(())
    }

    /// Whether the lease holds now.
    pub(crate) fn holds(&self) -> bool {
        self.lease.at(self.near.now()).is_some()
    }

    /// Notes the server's time in a reply that has just arrived.
    pub(crate) fn note_time(&self, time: u64) {
        self.lease.note_time(self.near.now(), time);
    }

    /// Lets the lease hold for no longer than this from now on.
    pub(crate) fn use_for(&self, time: Duration) {
        let end = self.near.now().saturating_add(time.as_micros() as u64);
        self.lease.use_by(end);
    }

    /// Ends the lease for good.
    pub(crate) fn end(&self) {
        if self.lease.end() {
            self.near.note_loss();
            self.near.wake_all();
        }
    }
}

impl Probes {
    /// The probes to begin with.
    pub(crate) fn new() -> Self {
        Self { first: 0, count: 1 }
    }

    /// Keeps to the first one that was read. If there is none, the next ones are tried.
    fn read(&mut self, replies: impl Iterator<Item = Value>) -> RedisResult<()> {
        let mut outcome = Ok(());
        for (n, reply) in (self.first..).zip(replies) {
            match reply.extract_error() {
                Ok(_) => {
                    *self = Self { first: n, count: 1 };
                    return Ok(());
                }
                Err(error) => outcome = Err(error),
            }
        }
        if let Err(error) = &outcome
            && Fault::of(error).is_of_another_node()
        {
            let first = (self.first + self.count) % LAST_PROBE;
            *self = Self {
                first,
                count: MANY_PROBES,
            };
        }
        outcome
    }
}

/// The server's time in microseconds, and whether it announces changes.
fn read(time: Value, info: Value) -> RedisResult<(u64, bool)> {
    let time: Time = redis::from_redis_value(time.extract_error()?)?;
    let info: HashMap<String, Value> = redis::from_redis_value(info.extract_error()?)?;
    let flags = info.into_iter().find(|(name, _)| name == "flags");
    let flags: Vec<String> = match flags {
        Some((_, flags)) => redis::from_redis_value(flags)?,
        None => Vec::new(),
    };
    let is_tracking = flags.iter().any(|flag| flag == "on")
        && !flags
            .iter()
            .any(|flag| flag == "broken_redirect" || flag == "noloop");
    Ok((micros(time), is_tracking))
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;
    use crate::{
        TokenId,
        store::{
            Checked, NewSession, SessionRecord,
            redis::{
                keys::Keys,
                near::{Entry, NearCache},
            },
        },
    };

    fn tracking() -> Tracking {
        let keys = Keys::new("t".into(), "u".into()).expect("prefixes");
        Tracking::new(&Arc::new(Near::new(NearCache::new(), keys)))
    }

    fn value(reply: &str) -> Value {
        parse_redis_value(reply.as_bytes()).expect("a reply")
    }

    const TRACKING: &str = "~2\r\n+on\r\n+bcast\r\n";

    /// The replies to a heartbeat at a server with these flags, to which probes are answered so.
    fn replies(flags: &str, probes: &[&str]) -> Vec<Value> {
        let info = format!("%2\r\n+flags\r\n{flags}+redirect\r\n:0\r\n");
        let head = ["*2\r\n$1\r\n1\r\n$1\r\n5\r\n", &info];
        head.iter()
            .chain(probes)
            .map(|reply| value(reply))
            .collect()
    }

    fn renew(tracking: &Tracking, replies: Vec<Value>) -> Result<(), NotRenewed> {
        tracking.renew(tracking.now(), replies, &mut Probes::new())
    }

    fn is_valid(tracking: &Tracking) -> bool {
        tracking.lease.at(tracking.now()).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_renews_the_lease() {
        let tracking = tracking();
        assert!(!is_valid(&tracking));
        renew(&tracking, replies(TRACKING, &["_\r\n"])).unwrap();
        assert!(is_valid(&tracking));
        tokio::time::advance(3 * tracking.interval()).await;
        assert!(!is_valid(&tracking));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_announces_nothing_ends_it() {
        for flags in [
            "~1\r\n+off\r\n",
            "~0\r\n",
            "~2\r\n+on\r\n+broken_redirect\r\n",
        ] {
            let tracking = tracking();
            renew(&tracking, replies(TRACKING, &["_\r\n"])).unwrap();
            let renewed = renew(&tracking, replies(flags, &["_\r\n"]));
            assert!(matches!(renewed, Err(NotRenewed::NotTracking)), "{flags:?}");
            assert!(!is_valid(&tracking));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_renews_nothing() {
        for place in 0..3 {
            let tracking = tracking();
            let mut replies = replies(TRACKING, &["_\r\n"]);
            replies[place] = value("-LOADING Redis is loading\r\n");
            let renewed = renew(&tracking, replies);
            assert!(matches!(renewed, Err(NotRenewed::Error(_))));
            assert!(!is_valid(&tracking) && !tracking.lease.has_ended());
        }
    }

    /// A node of a cluster that has lost all of its slots answers every probe so.
    #[tokio::test(start_paused = true)]
    async fn probes_are_tried_until_one_is_at_the_node() {
        let tracking = tracking();
        let mut probes = Probes::new();
        let moved = "-MOVED 1 127.0.0.1:7000\r\n";
        let mut beat = |answers: &[&str]| {
            let commands = tracking.heartbeat(&probes).len();
            let renewed = tracking.renew(tracking.now(), replies(TRACKING, answers), &mut probes);
            (commands - 2, renewed.is_ok())
        };
        assert_eq!(beat(&[moved]), (1, false));
        assert_eq!(beat(&[moved; 64]), (64, false));
        assert!(!is_valid(&tracking));
        let mut answers = [moved; 64];
        answers[9] = "_\r\n";
        assert_eq!(beat(&answers), (64, true));
        assert!(is_valid(&tracking));
        assert_eq!(beat(&["_\r\n"]), (1, true));
        assert_eq!(probes.first, 1 + 64 + 9);
    }

    #[tokio::test(start_paused = true)]
    async fn announcements_drop_what_they_name() {
        let (al, bo) = ("*1\r\n$6\r\nt:{al}\r\n", "*1\r\n$6\r\nu:{bo}\r\n");
        let both = "*2\r\n$6\r\nt:{al}\r\n$6\r\nt:{bo}\r\n";
        for (announced, left) in [
            (al, [false, true]),
            (bo, [true, false]),
            (both, [false, false]),
            ("_\r\n", [false, false]),
            ("*1\r\n$4\r\nu:{}\r\n", [true, true]),
        ] {
            let tracking = tracking();
            renew(&tracking, replies(TRACKING, &["_\r\n"])).unwrap();
            let id = |user: &str| TokenId::from_bytes(&[user.as_bytes()[0]; 16]);
            let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            let new = NewSession::new(Duration::from_secs(60));
            let checked = Checked::new(now, SessionRecord::begin(&new, now), None);
            for user in ["al", "bo"] {
                let ticket = tracking.near.begin(user);
                let entry = Entry::new(checked.clone(), None, Arc::clone(&tracking.lease), None);
                tracking.near.finish(ticket, &id(user), entry, 20);
            }
            tracking.announced(&[value(announced)]);
            let is_hit = |user| tracking.near.hit(user, &id(user), |_, _| true).is_some();
            let hits = ["al", "bo"].map(is_hit);
            assert_eq!(hits, left, "{announced:?}");
        }
    }
}
