//! Listing the users who have sessions.

use super::{RedisStore, ops::scan::ScanPosition};
use crate::{
    Error,
    store::{UserCursor, UserPage},
};

impl RedisStore {
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
