//! The list of a user's sessions.

use super::{MySqlStore, errors::Failure, record, sql::PAGE, statement::query};
use crate::{Error, TokenId, store::SessionRecord};

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
}
