//! What must hold of a session and of a cached value, by what was acknowledged.

use std::time::{Duration, Instant, SystemTime};

use tower_bearer_session::{TokenId, store::SessionRecord};

/// Stores round to milliseconds, and a server looks at the clock a little earlier than it answers.
const SLACK: Duration = Duration::from_millis(50);

/// The time in which a call was under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) began: SystemTime,
    pub(crate) ended: SystemTime,
    /// When it began.
    pub(crate) at: Instant,
}

/// How firmly something is known.
///
/// What is not `sure` may be undone by a fault that was near it in time: see [`Losses`](crate::losses::Losses).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    pub(crate) sure: bool,
    /// When it was asked for.
    pub(crate) since: Instant,
}

impl Evidence {
    /// What was told without being asked for.
    pub(crate) fn seen(asked: Asked) -> Self {
        Self {
            sure: false,
            since: asked.at,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Live,
    Dead,
    /// An operation has failed, and none has told since then.
    Unknown,
}

/// A session of a worker's user.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) id: TokenId,
    pub(crate) number: u64,
    pub(crate) state: State,
    pub(crate) evidence: Evidence,
    /// The earliest and the latest expiry that it may have.
    pub(crate) expiry: (SystemTime, SystemTime),
}

impl Known {
    /// Whether the session must be live (`Some(true)`), must not be, or may be.
    pub(crate) fn must_be_live(&self, asked: Asked) -> Option<bool> {
        let (earliest, latest) = self.expiry;
        if self.state == State::Dead || asked.began > latest + SLACK {
            Some(false)
        } else if self.state == State::Live && asked.ended + SLACK < earliest {
            Some(true)
        } else {
            None
        }
    }

    /// What is wrong with an answer about the session.
    pub(crate) fn wrong(&self, found: Option<&SessionRecord>, asked: Asked) -> Option<String> {
        match (self.must_be_live(asked), found) {
            (Some(false), Some(_)) => Some("accepted, though it has ended".to_owned()),
            (Some(true), None) => Some("refused, though it is live".to_owned()),
            (_, Some(record)) if !self.may_expire_at(record.expires_at) => Some(format!(
                "expires at {:?}, not {:?}",
                record.expires_at, self.expiry
            )),
            _ => None,
        }
    }

    /// Takes over an answer.
    pub(crate) fn learn(&mut self, found: Option<&SessionRecord>, asked: Asked) {
        let (state, expiry) = match found {
            Some(record) => (State::Live, (record.expires_at, record.expires_at)),
            None => (State::Dead, self.expiry),
        };
        // What was acknowledged is known more firmly than what was only seen.
        if (self.state, self.expiry) != (state, expiry) {
            (self.state, self.expiry) = (state, expiry);
            self.evidence = Evidence::seen(asked);
        }
    }

    /// An operation that could have changed it has failed.
    pub(crate) fn doubt(&mut self) {
        if self.state == State::Live {
            self.state = State::Unknown;
        }
    }

    /// It may have been refreshed.
    pub(crate) fn doubt_expiry(&mut self, ttl: Duration, asked: Asked) {
        let (earliest, latest) = self.expiry;
        self.expiry = (
            earliest.min(asked.began + ttl),
            latest.max(asked.ended + ttl),
        );
    }

    fn may_expire_at(&self, at: SystemTime) -> bool {
        let (earliest, latest) = self.expiry;
        (earliest - SLACK..=latest + SLACK).contains(&at)
    }
}

/// The cached value of a user.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// What it may be; one, unless an operation has failed.
    pub(crate) may_be: Vec<Option<u64>>,
    pub(crate) evidence: Evidence,
}
