//! The list of a user's sessions, and of the users who have any.

use sqlx::Row;

use super::{
    MySqlStore,
    errors::Failure,
    record,
    sql::{PAGE, USERS},
    statement::query,
};
use crate::{
    Error, TokenId,
    store::{SessionRecord, UserCursor, UserPage},
    token::check_user_id,
};

impl MySqlStore {
    /// Reads the live sessions of a user page by page, oldest first.
    pub(super) async fn list_pages(
        &self,
        user_id: &str,
    ) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let mut sessions = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let from = u128::to_be_bytes(from);
            let page = || {
                query(&self.client.sql.list)
                    .bind(user_id.as_bytes())
                    .bind(&from[..])
            };
            let page = self.read(page).await?;
            for row in &page {
                sessions.extend(record::session(row).map_err(Failure::Driver)?);
            }
            let last = page.get(PAGE - 1).map(|row| record::id(row, 1));
            let last = last.transpose().map_err(Failure::Driver)?.flatten();
            next = last.and_then(|last| u128::from_be_bytes(last).checked_add(1));
        }
        sessions.sort_by_key(|(id, session)| (session.created_at, *id));
        Ok(sessions)
    }

    /// Reads a page of the users who have rows, in the order of their ids.
    pub(super) async fn user_page(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        // No user id is empty.
        let after = after
            .map(UserCursor::user_id)
            .transpose()?
            .unwrap_or_default();
        let page = || query(&self.client.sql.list_users).bind(&after[..]);
        let (mut users, mut sessions) = (Vec::new(), 0);
        for row in &self.read(page).await? {
            let (user_id, count) = (row.try_get(1), row.try_get::<i64, _>(2));
            users.push(user_id.map_err(Failure::Driver)?);
            sessions += count.map_err(Failure::Driver)?;
        }
        users.sort_unstable();
        // Of the last user, the page may have seen only some of the rows; the next page begins after all of them.
        let next = match sessions >= USERS as i64 {
            true => users
                .last()
                .map(|last: &Vec<u8>| UserCursor::after_user(last)),
            false => None,
        };
        let users = users
            .into_iter()
            .filter_map(|id| String::from_utf8(id).ok());
        let users = users.filter(|id| check_user_id(id).is_ok());
        Ok(UserPage::new(users.collect(), next))
    }
}
