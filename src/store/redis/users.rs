//! Cached users, and listing the users who have sessions.

use std::time::Duration;

use super::{
    RedisStore, check_len, conn::link::OnDrop, millis, ops::scan::ScanPosition, wire::script,
};
use crate::{
    Error,
    store::{PutMode, UserCursor, UserPage},
};

impl RedisStore {
    /// Writes the cached value of a user; `false` if the condition does not hold.
    pub(super) async fn put_value(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        let (when, seen) = match mode {
            PutMode::Replace => ("always", None),
            PutMode::IfUnchanged(None) => ("none", None),
            PutMode::IfUnchanged(Some(seen)) => ("same", Some(seen)),
        };
        check_len("a cached value", value)?;
        check_len("the value to replace", seen.unwrap_or_default())?;
        let _changing = self.changing(user_id);
        let call = script::PUT_USER
            .call(self.keys.user(user_id))
            .arg(value)
            .arg(millis(ttl))
            .arg(when)
            .arg(seen.unwrap_or_default());
        Ok(self.client.write(&call, OnDrop::Retry).await?.reply)
    }

    /// Reads a page of the keys of all sessions.
    pub(super) async fn user_page(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        let place =
            after.map(|after| ScanPosition::parse(after.as_str()).ok_or_else(UserCursor::invalid));
        let (keys, next) = self.client.scan(&self.keys, place.transpose()?).await?;
        let users = keys.iter().filter_map(|key| self.keys.user_of(key));
        let mut users: Vec<String> = users.collect();
        // A scan may return a key more than once.
        users.sort_unstable();
        users.dedup();
        let next = next.map(|place| UserCursor::new(place.to_string()));
        Ok(UserPage::new(users, next))
    }
}
