//! The replies to lookups.

use std::{iter, sync::Arc, time::Duration};

use redis::Value;

use crate::store::redis::{
    conn::link::{Answer, Failure},
    near::lease::Lease,
    wire::{Reply, Time, clock::micros, unexpected_reply},
};

/// The reply to a lookup: a string, nil or an error for each read.
pub(crate) struct LookupReply {
    now: Time,
    session: Value,
    user: Value,
    near: Option<NearReply>,
}

/// What a near-cache needs to keep what was found.
struct NearReply {
    /// How long the user's value will live, by the server.
    user_ttl: Value,
    lease: Arc<Lease>,
}

/// What a lookup has found.
pub(crate) struct Found {
    pub(crate) now: Time,
    /// The record of the session.
    pub(crate) session: Reply,
    /// The cached value of the user.
    pub(crate) user: Reply,
    /// What a near-cache needs to keep this; `None` if it must not.
    pub(crate) keep: Option<Keep>,
}

/// The conditions on which a near-cache may keep what was found.
pub(crate) struct Keep {
    /// How long the user's value lives; `None` if it does not expire, or does not exist.
    pub(crate) user_ttl: Option<Duration>,
    /// The lease of the connection on which all was read.
    pub(crate) lease: Arc<Lease>,
}

impl LookupReply {
    /// Reads the reply to a pipeline with one lookup.
    pub(super) fn of(answer: Answer) -> Result<Self, Failure> {
        let mut found = Self::all_of(answer, 1)?;
        found
            .next()
            .ok_or_else(|| Failure::Down(unexpected_reply("check")))
    }

    /// Reads a reply that was assembled from those of two nodes: its time may be that of either node.
    pub(crate) fn of_two_nodes(answer: Answer) -> Result<Self, Failure> {
        let mut found = Self::read_all(answer.values, 1, None)?;
        found
            .next()
            .ok_or_else(|| Failure::Down(unexpected_reply("check")))
    }

    /// Reads the replies to this number of lookups, in their order.
    pub(super) fn all_of(
        answer: Answer,
        lookups: usize,
    ) -> Result<impl Iterator<Item = Self>, Failure> {
        let lease = answer.live.lease().cloned();
        let mut found = Self::read_all(answer.values, lookups, lease)?.peekable();
        if let Some(first) = found.peek() {
            answer.live.note_time(micros(first.now));
        }
        Ok(found)
    }

    fn read_all(
        values: Vec<Value>,
        lookups: usize,
        lease: Option<Arc<Lease>>,
    ) -> Result<impl Iterator<Item = Self>, Failure> {
        // No lookup may get the reply to another one.
        let reads = if lease.is_some() { 3 } else { 2 };
        if values.len() != 1 + reads * lookups {
            return Err(Failure::Down(unexpected_reply("check")));
        }
        let mut values = values.into_iter();
        let now = values.next().unwrap_or(Value::Nil).extract_error();
        let now = now.and_then(|now| Ok(redis::from_redis_value(now)?));
        let now = now.map_err(Failure::Redis)?;
        Ok(iter::from_fn(move || {
            let (session, user) = (values.next()?, values.next()?);
            let near = match &lease {
                Some(lease) => Some(NearReply {
                    user_ttl: values.next()?,
                    lease: Arc::clone(lease),
                }),
                None => None,
            };
            Some(Self {
                now,
                session,
                user,
                near,
            })
        }))
    }

    /// Whether the server answered a read with an error.
    pub(crate) fn has_error(&self) -> bool {
        let mut replies = self.replies().into_iter();
        replies.any(|reply| matches!(reply, Value::ServerError(_)))
    }

    /// The replies to the two reads.
    pub(crate) fn replies(&self) -> [&Value; 2] {
        [&self.session, &self.user]
    }

    /// The replies to all commands of the lookup, in their order.
    pub(crate) fn into_values(self) -> Vec<Value> {
        let (seconds, micros) = self.now;
        let now = [seconds, micros].map(|part| Value::Int(part as i64));
        vec![Value::Array(now.to_vec()), self.session, self.user]
    }

    /// Reads the replies. Fails with the first error among them.
    pub(crate) fn read(self) -> Result<Found, Failure> {
        let read = |value: Value| Ok(redis::from_redis_value(value.extract_error()?)?);
        let session = read(self.session).map_err(Failure::Redis)?;
        let user: Reply = read(self.user).map_err(Failure::Redis)?;
        let keep = self.near.and_then(|near| near.read(user.is_some()));
        Ok(Found {
            now: self.now,
            session,
            user,
            keep,
        })
    }
}

impl NearReply {
    /// Reads the reply, after a value of the user or none.
    fn read(self, has_user: bool) -> Option<Keep> {
        let user_ttl: i64 = redis::from_redis_value(self.user_ttl).ok()?;
        let user_ttl = match user_ttl {
            // The value does not expire.
            -1 => None,
            // There is none, or it has just expired.
            -2 if has_user => return None,
            -2 => None,
            ttl => Some(Duration::from_millis(ttl.try_into().ok()?)),
        };
        // Without a value, a time to live is that of one that was written in between.
        Some(Keep {
            user_ttl: user_ttl.filter(|_| has_user),
            lease: self.lease,
        })
    }
}
