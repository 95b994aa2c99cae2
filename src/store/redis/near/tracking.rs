//! The announcements of changes on one connection
//! ([client-side caching](https://redis.io/docs/latest/develop/reference/client-side-caching/)).

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{Pipeline, RedisError, RedisResult, Value};

use super::{Near, lease::Lease};
use crate::store::redis::wire::{Time, clock::micros};

/// The announcements on one connection, and the lease that depends on them.
#[derive(Clone)]
pub(crate) struct Tracking {
    near: Arc<Near>,
    lease: Arc<Lease>,
}

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

    /// The commands of a heartbeat: the time, a keyed read, and whether the server still announces changes.
    pub(crate) fn heartbeat(&self, probe: &str) -> Pipeline {
        let mut commands = Pipeline::with_capacity(3);
        commands.cmd("TIME");
        commands.cmd("GET").arg(probe);
        commands.cmd("CLIENT").arg("TRACKINGINFO");
        commands
    }

    /// Now, for [`renew`](Self::renew).
    pub(crate) fn now(&self) -> u64 {
        self.near.now()
    }

    /// Renews the lease by the replies to a [`heartbeat`](Self::heartbeat) that was sent at this moment.
    pub(crate) fn renew(&self, sent: u64, replies: Vec<Value>) -> Result<(), NotRenewed> {
        let answered = self.near.now();
        let (time, is_tracking) = read(replies).map_err(NotRenewed::Error)?;
        if !is_tracking {
            self.end();
            return Err(NotRenewed::NotTracking);
        }
        let max_staleness = self.near.settings.max_staleness;
        self.lease.renew(sent, answered, time, max_staleness);
        Ok(())
    }

    /// Lets the lease hold for no longer than this from now on.
    pub(crate) fn use_for(&self, time: Duration) {
        let end = self.near.now().saturating_add(time.as_micros() as u64);
        self.lease.use_by(end);
    }

    /// Ends the lease for good.
    pub(crate) fn end(&self) {
        self.lease.end();
    }
}

/// The server's time in microseconds, and whether it announces changes.
fn read(replies: Vec<Value>) -> RedisResult<(u64, bool)> {
    // An error in one of them is an error of all.
    let replies = Value::Array(replies).extract_error()?;
    let (time, _probe, info): (Time, Value, HashMap<String, Value>) =
        redis::from_redis_value(replies)?;
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
            redis::{keys::Keys, near::NearCache},
        },
    };

    fn tracking() -> Tracking {
        let keys = Keys::new("t".into(), "u".into()).expect("prefixes");
        Tracking::new(&Arc::new(Near::new(NearCache::new(), keys)))
    }

    fn value(reply: &str) -> Value {
        parse_redis_value(reply.as_bytes()).expect("a reply")
    }

    /// The replies to a heartbeat at a server with these flags.
    fn replies(flags: &str) -> Vec<Value> {
        let info = format!("%2\r\n+flags\r\n{flags}+redirect\r\n:0\r\n");
        vec![
            value("*2\r\n$1\r\n1\r\n$1\r\n5\r\n"),
            Value::Nil,
            value(&info),
        ]
    }

    fn is_valid(tracking: &Tracking) -> bool {
        tracking.lease.at(tracking.now()).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_renews_the_lease() {
        let tracking = tracking();
        assert!(!is_valid(&tracking));
        tracking
            .renew(tracking.now(), replies("~2\r\n+on\r\n+bcast\r\n"))
            .unwrap();
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
            tracking
                .renew(tracking.now(), replies("~1\r\n+on\r\n"))
                .unwrap();
            let renewed = tracking.renew(tracking.now(), replies(flags));
            assert!(matches!(renewed, Err(NotRenewed::NotTracking)), "{flags:?}");
            assert!(!is_valid(&tracking));
        }
    }

    /// A node of a cluster that has lost its slots answers the read so.
    #[tokio::test(start_paused = true)]
    async fn an_error_renews_nothing() {
        for place in 0..3 {
            let tracking = tracking();
            let mut replies = replies("~1\r\n+on\r\n");
            replies[place] = value("-MOVED 1 127.0.0.1:7000\r\n");
            let renewed = tracking.renew(tracking.now(), replies);
            assert!(matches!(renewed, Err(NotRenewed::Error(_))));
            assert!(!is_valid(&tracking) && !tracking.lease.has_ended());
        }
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
            tracking
                .renew(tracking.now(), replies("~1\r\n+on\r\n"))
                .unwrap();
            let id = |user: &str| TokenId::from_bytes(&[user.as_bytes()[0]; 16]);
            let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            let new = NewSession::new(Duration::from_secs(60));
            let checked = Checked::new(now, SessionRecord::begin(&new, now), None);
            for user in ["al", "bo"] {
                let ticket = tracking.near.begin(user);
                let (near, lease) = (&tracking.near, &tracking.lease);
                near.finish(ticket, lease, user, &id(user), &checked, 20);
            }
            tracking.announced(&[value(announced)]);
            let is_hit = |user| tracking.near.hit(user, &id(user), |_| true).is_some();
            let hits = ["al", "bo"].map(is_hit);
            assert_eq!(hits, left, "{announced:?}");
        }
    }
}
