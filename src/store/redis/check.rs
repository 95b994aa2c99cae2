//! Checks of sessions, by the near-cache or by the server.

use std::{
    future::pending,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    RedisStore,
    near::{Entry, Near},
    ops::lookup::LookupKeys,
    record,
    wire::Time,
};
use crate::{
    Error, TokenId,
    store::{CachedUser, Checked},
};

/// A write for a user. When it is dropped, the near-cache forgets what it knows of the user: a check that begins after
/// the write has returned is not answered by what was there before.
pub(super) struct Changing<'a> {
    near: Option<&'a Near>,
    user_id: &'a str,
}

impl RedisStore {
    /// Asks the server, and lets the near-cache keep the answer.
    pub(super) async fn ask(
        &self,
        user_id: &str,
        token_id: &TokenId,
    ) -> Result<Option<Checked>, Error> {
        let keys = LookupKeys {
            sessions: &self.keys.sessions(user_id),
            token_id,
            user: &self.keys.user(user_id),
        };
        let near = self.near.as_deref();
        let near = near.map(|near| (near, near.begin(user_id)));
        let found = self.client.look_up(&keys).await?;
        let now = time(found.now);
        let record_len = found.session.as_ref().map_or(0, Vec::len);
        let session = found.session.as_deref().and_then(record::decode);
        match session.filter(|session| now < session.expires_at) {
            Some(session) if session.is_opaque => Err(Error::newer_session()),
            Some(session) => {
                let user = found.user.map(Bytes::from);
                let mut checked = Checked::new(now, session, None);
                let (Some((near, ticket)), Some(keep)) = (near, found.keep) else {
                    checked.user = user.map(CachedUser::from);
                    return Ok(Some(checked));
                };
                checked.user = user.map(CachedUser::kept);
                let slot = self.client.slot(keys.sessions);
                let entry = Entry::new(checked.clone(), keep.user_ttl, keep.lease, slot);
                near.finish(ticket, token_id, entry, record_len);
                Ok(Some(checked))
            }
            None => Ok(None),
        }
    }

    /// What the near-cache knows of a live session.
    pub(super) fn hit(&self, user_id: &str, token_id: &TokenId) -> Option<Checked> {
        let near = self.near.as_deref()?;
        near.hit(user_id, token_id, |lease, slot| {
            self.client.is_current(lease, slot)
        })
    }

    /// Resolves when a change of this user was announced after the call; never without a near-cache.
    pub(super) fn until_changed(&self, user_id: &str) -> impl Future<Output = ()> + Send {
        let changed = self.near.as_deref().map(|near| near.changed(user_id));
        async move {
            match changed {
                Some(changed) => changed.await,
                None => pending().await,
            }
        }
    }

    /// Begins a write for a user.
    pub(super) fn changing<'a>(&'a self, user_id: &'a str) -> Changing<'a> {
        Changing {
            near: self.near.as_deref(),
            user_id,
        }
    }
}

/// The moment in the reply to `TIME`.
pub(super) fn time((seconds, micros): Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros)
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if let Some(near) = self.near {
            near.invalidate(self.user_id);
        }
    }
}
