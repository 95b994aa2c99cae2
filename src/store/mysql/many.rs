//! Statements about many sessions of a user at once, whose ids they contain.

use std::fmt::Write;

use sqlx::SqlStr;

use super::sql::{COLUMNS, Sql, text};

impl Sql {
    /// Selects and locks the live ones of these sessions.
    pub(super) fn lock_live(
        &self,
        user_id: &[u8],
        ids: &[[u8; 16]],
        now: i64,
        cutoff: i64,
    ) -> SqlStr {
        let (by_key, these) = (&self.by_key, these(user_id, ids));
        text(format!(
            "SELECT {now}, {COLUMNS} FROM {by_key} WHERE {these} \
             AND s.expires_at > {now} AND s.generation >= {cutoff} FOR UPDATE"
        ))
    }

    /// Ends these sessions of a user, live or not.
    pub(super) fn evict(&self, user_id: &[u8], ids: &[[u8; 16]]) -> SqlStr {
        let (sessions, these) = (&self.sessions, these(user_id, ids));
        text(format!("DELETE FROM {sessions} WHERE {these}"))
    }

    /// Gives these sessions of a user another generation.
    pub(super) fn keep_these(&self, user_id: &[u8], ids: &[[u8; 16]], generation: i64) -> SqlStr {
        let (sessions, these) = (&self.sessions, these(user_id, ids));
        text(format!(
            "UPDATE {sessions} SET generation = {generation} WHERE {these}"
        ))
    }
}

fn these(user_id: &[u8], ids: &[[u8; 16]]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| literal(id)).collect();
    format!(
        "user_id = {} AND token_id IN ({})",
        literal(user_id),
        ids.join(", ")
    )
}

/// A literal of arbitrary bytes.
fn literal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(3 + 2 * bytes.len());
    text.push_str("X'");
    for byte in bytes {
        let _ = write!(text, "{byte:02X}");
    }
    text.push('\'');
    text
}
