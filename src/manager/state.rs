use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::metadata;
use crate::{
    store::{Checked, SessionRecord, SessionVersion},
    token::TokenIds,
    user::UserToken,
};

/// What a check told of a session, and of the token that was presented for it.
#[derive(Clone)]
pub(crate) struct SessionState {
    pub(crate) ids: TokenIds,
    /// The time of the check, by the store's clock.
    pub(crate) now: SystemTime,
    /// The end of the grace of a token that was replaced.
    usable_until: Option<SystemTime>,
    pub(crate) record: Arc<SessionRecord>,
}

impl SessionState {
    #[inline]
    pub(super) fn of(ids: TokenIds, checked: Checked) -> Self {
        let Checked {
            now,
            session: record,
            ..
        } = checked;
        let usable_until = record.usable_until(&ids.token);
        Self {
            ids,
            now,
            usable_until,
            record,
        }
    }

    /// When the token can no longer be used, unless its session is refreshed.
    #[inline]
    pub(crate) fn expires_at(&self) -> SystemTime {
        let end = self.record.expires_at;
        self.usable_until.map_or(end, |until| until.min(end))
    }

    /// Whether the token is the current one of the session, and not a replaced one in its grace.
    pub(crate) fn is_current(&self) -> bool {
        self.usable_until.is_none()
    }

    /// The time from then to the check.
    pub(crate) fn since(&self, time: SystemTime) -> Duration {
        self.now.duration_since(time).unwrap_or_default()
    }

    /// Whether the last request of the session was noted at least so long before the check. Not by a replaced token.
    pub(super) fn is_seen_after(&self, interval: Duration) -> bool {
        let last = metadata::seen_at(self.record.metadata.as_deref());
        self.usable_until.is_none() && last.is_none_or(|last| self.since(last) >= interval)
    }

    #[inline]
    pub(super) fn token(&self) -> UserToken {
        let expires_at = self.expires_at();
        UserToken {
            session: self.ids.session,
            remaining: expires_at.duration_since(self.now).unwrap_or_default(),
            expires_at,
        }
    }

    pub(super) fn version(&self) -> SessionVersion {
        self.record.version()
    }

    /// The ttl that the last refresh (or the login) set; `None` if the session already reaches its absolute end, or the
    /// token was replaced.
    pub(super) fn renewable(&self) -> Option<Duration> {
        let record = &self.record;
        let ttl = record.expires_at.duration_since(record.refreshed_at).ok();
        ttl.filter(|_| record.ends_at != Some(record.expires_at) && self.usable_until.is_none())
    }
}
