//! Changes of a live session.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    MySqlStore,
    client::WhenUnsure,
    cutoffs,
    errors::Failure,
    pool::Link,
    record::{self, millis, span},
    statement::{Statement, query},
};
use crate::{
    Error, TokenId,
    store::{Checked, SessionChange, Updated},
};

/// A change and its session.
struct Update<'a> {
    user_id: &'a str,
    token_id: &'a TokenId,
    change: &'a SessionChange,
}

impl MySqlStore {
    pub(super) async fn change(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        let sql = &self.client.sql;
        let update = Update {
            user_id,
            token_id,
            change,
        };
        let id = token_id.to_bytes();
        let statements = |link: &Link| {
            let statement = query(&sql.update);
            let check = query(&sql.session)
                .bind(user_id.as_bytes().to_vec())
                .bind(id.to_vec());
            (update.bind(statement, link.not_after()), check)
        };
        let (token_id, change) = (*token_id, change.clone());
        if !change.end_others {
            let work = |mut link: Link| {
                let ((statement, check), change) = (statements(&link), change.clone());
                async move {
                    let updated = run(&mut link, statement, check, &token_id, &change).await?;
                    Ok((link, updated))
                }
            };
            return self.client.run(work).await;
        }
        // The number of sessions that an attempt with an unknown commit ended.
        let ended_unsure = AtomicU64::new(0);
        let unsure = &ended_unsure;
        // It locks the user first, as logins and logouts of all sessions do.
        let work = |mut link: Link| {
            let (statements, change) = (&statements, &change);
            async move {
                link.begin_alone(sql, user_id).await?;
                let (statement, check) = statements(&link);
                let mut updated = run(&mut link, statement, check, &token_id, change).await?;
                let mut ended = 0;
                if let Some(updated) = &mut updated {
                    ended = cutoffs::end_all(&mut link, sql, user_id, Some(id)).await?;
                    updated.ended = ended.max(unsure.load(Ordering::Relaxed));
                }
                if let Err(failure) = link.commit(sql).await {
                    unsure.fetch_max(ended, Ordering::Relaxed);
                    return Err(failure);
                }
                Ok((link, updated))
            }
        };
        let client = &self.client;
        client.transaction(user_id, WhenUnsure::Repeat, work).await
    }
}

/// Runs the update; if it changes nothing, the check tells whether an earlier attempt has done it.
async fn run(
    link: &mut Link,
    update: Statement,
    check: Statement,
    token_id: &TokenId,
    change: &SessionChange,
) -> Result<Option<Updated>, Failure> {
    let done = update.execute(&mut link.open.connection).await?;
    if done.rows_affected() > 0 {
        let expires_at = i64::try_from(done.last_insert_id()).ok();
        let expires_at = expires_at.and_then(record::time);
        let expires_at = expires_at.ok_or_else(record::out_of_range)?;
        return Ok(Some(Updated::new(expires_at, 0)));
    }
    let rows = link.read(check).await?;
    let Some(checked) = rows.first().map(record::checked).transpose()?.flatten() else {
        return Ok(None);
    };
    let is_done = is_done_by(&checked, token_id, change, link.is_retry);
    Ok(is_done.then(|| Updated::new(checked.session.expires_at, 0)))
}

/// Whether an earlier attempt at the change has, or may have, made the session what it is.
fn is_done_by(
    checked: &Checked,
    token_id: &TokenId,
    change: &SessionChange,
    is_retry: bool,
) -> bool {
    let session = &checked.session;
    if let Some(new) = &change.new_token {
        return *session.current_token(token_id) == new.token_id;
    }
    let current = session.current_token(token_id);
    if change.if_token.is_some_and(|token| token != *current) {
        return false;
    }
    match (change.if_version, change.ttl) {
        (Some(version), Some(ttl)) => {
            is_retry && change.is_renewal() && record::may_result_from(session, version, ttl)
        }
        _ => false,
    }
}

impl Update<'_> {
    /// Binds the arguments of the statement.
    fn bind(&self, statement: Statement, not_after: i64) -> Statement {
        let change = self.change;
        let ttl = change.ttl.map(span);
        let id = |id: &TokenId| id.to_bytes().to_vec();
        let new_token = change.new_token.as_ref();
        let new_id = new_token.map(|new| id(&new.token_id));
        let metadata = change.metadata.as_deref();
        let version = change.if_version;
        statement
            .bind(ttl)
            .bind(ttl)
            .bind(ttl)
            .bind(ttl)
            .bind(metadata.is_some())
            .bind(
                metadata
                    .filter(|bytes| !bytes.is_empty())
                    .map(<[u8]>::to_vec),
            )
            .bind(change.authenticated)
            .bind(ttl)
            .bind(new_id.clone())
            .bind(ttl)
            .bind(change.authenticated)
            .bind(new_token.map(|new| span(new.grace)))
            .bind(new_id.clone())
            .bind(self.user_id.as_bytes().to_vec())
            .bind(id(self.token_id))
            .bind(self.user_id.as_bytes().to_vec())
            .bind(not_after)
            .bind(change.if_token.as_ref().map(id))
            .bind(new_id)
            .bind(version.map(|version| millis(version.refreshed_at)))
            .bind(version.map(|version| millis(version.expires_at)))
            .bind(change.if_metadata.as_deref().map(<[u8]>::to_vec))
    }
}
