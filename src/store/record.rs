use std::time::SystemTime;

use bytes::Bytes;

use super::{
    NewSession, SessionChange, SessionRecord, SessionVersion,
    rotation::{Rotation, TokenStatus},
};
use crate::TokenId;

impl SessionChange {
    /// Whether this is a refresh on condition of a version and nothing else, so that the times of a session tell
    /// whether it was done.
    #[cfg(any(feature = "mysql", feature = "redis"))]
    pub(crate) fn is_renewal(&self) -> bool {
        self.if_version.is_some()
            && self.ttl.is_some()
            && self.metadata.is_none()
            && !self.authenticated
            && !self.end_others
            && self.new_token.is_none()
            && self.if_metadata.is_none()
    }
}

impl SessionRecord {
    /// A session that is created at `now`, by the store's clock. A store that reads a record back sets the fields.
    pub fn begin(new: &NewSession, now: SystemTime) -> Self {
        let ends_at = new.max_lifetime.map(|lifetime| now + lifetime);
        Self {
            created_at: now,
            refreshed_at: now,
            authenticated_at: now,
            expires_at: earlier(now + new.ttl, ends_at),
            ends_at,
            metadata: new.metadata.clone().filter(|bytes| !bytes.is_empty()),
            rotation: None,
            is_opaque: false,
        }
    }

    /// The metadata, as [`SessionChange`] has them: empty if there are none.
    pub(crate) fn metadata(&self) -> Bytes {
        self.metadata.clone().unwrap_or_default()
    }

    /// The version of the session, for a conditional [`SessionChange`].
    pub fn version(&self) -> SessionVersion {
        SessionVersion {
            refreshed_at: self.refreshed_at,
            expires_at: self.expires_at,
        }
    }

    /// The id of the token that the holder of this session should have. The id of its first token is that of the
    /// session itself, `session_id`.
    pub fn current_token<'a>(&'a self, session_id: &'a TokenId) -> &'a TokenId {
        match &self.rotation {
            Some(rotation) => &rotation.current,
            None => session_id,
        }
    }

    /// What a token is to this session at `now`, by the store's clock.
    #[inline]
    pub fn token_status(
        &self,
        session_id: &TokenId,
        token_id: &TokenId,
        now: SystemTime,
    ) -> TokenStatus {
        match &self.rotation {
            Some(rotation) => rotation.status(session_id, token_id, now),
            None if token_id == session_id => TokenStatus::Current,
            None => TokenStatus::Unknown,
        }
    }

    /// The end of the grace of a replaced token; `None` for any other token.
    #[inline]
    pub(crate) fn usable_until(&self, token_id: &TokenId) -> Option<SystemTime> {
        let rotation = self.rotation.as_deref();
        let rotation = rotation.filter(|rotation| rotation.current != *token_id);
        let replaced = rotation.into_iter().flat_map(|rotation| &rotation.replaced);
        let mut replaced = replaced.filter(|replaced| replaced.token_id == *token_id);
        replaced.next().map(|replaced| replaced.usable_until)
    }

    /// Applies a change at `now`, by the store's clock; returns `false` and changes nothing if a condition does not
    /// hold.
    ///
    /// For stores that read a record, change it and write it back in one atomic step, in which they also end the
    /// [other sessions](SessionChange::end_others).
    pub fn apply(&mut self, session_id: &TokenId, change: &SessionChange, now: SystemTime) -> bool {
        if self.is_opaque {
            return false;
        }
        let current = *self.current_token(session_id);
        // An earlier copy of the call did it.
        if change.new_token.is_some_and(|new| new.token_id == current) {
            return true;
        }
        if change.if_token.is_some_and(|token| token != current)
            || change
                .if_version
                .is_some_and(|version| version != self.version())
            || change
                .if_metadata
                .as_deref()
                .is_some_and(|metadata| metadata != self.metadata.as_deref().unwrap_or_default())
        {
            return false;
        }
        if let Some(ttl) = change.ttl {
            self.refreshed_at = now;
            self.expires_at = earlier(now + ttl, self.ends_at);
        }
        if let Some(metadata) = &change.metadata {
            self.metadata = Some(metadata.clone()).filter(|bytes| !bytes.is_empty());
        }
        if change.authenticated {
            self.authenticated_at = now;
        }
        if let Some(new) = &change.new_token {
            let rotation = self
                .rotation
                .get_or_insert_with(|| Box::new(Rotation::of(*session_id)));
            rotation.replace(new, now);
        }
        true
    }
}

fn earlier(time: SystemTime, end: Option<SystemTime>) -> SystemTime {
    end.map_or(time, |end| time.min(end))
}
