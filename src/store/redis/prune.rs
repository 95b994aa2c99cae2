//! Reads all sessions of a user, and ends the expired ones and those in excess of a session limit.
//!
//! A login with a session limit is one script, which reads all sessions of the user. If the user has too many sessions
//! for one script, this module first ends most of the excess ones, page by page, so that no single command blocks the
//! server for long.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use redis::Pipeline;
use tokio::time::Instant;

use super::{
    RedisStore,
    check::time,
    conn::{
        link::{Done, OnDrop},
        live::Live,
    },
    record::{self, Header},
    token_id_of,
    wire::{Time, script::PRUNE},
};
use crate::{
    Error, ErrorKind, TokenId,
    store::{OnFull, SessionLimit, SessionRecord},
};

/// The approximate number of sessions in a page.
const PAGE: usize = 512;
/// The maximum number of sessions that one command ends. It is smaller than a page, because ending a session takes
/// longer than reading it.
const MAX_ENDED: usize = 256;
/// The number of excess sessions that are left for the login script to end. Sessions may end while the others are being
/// read, and then fewer of these have to end.
const SPARE: usize = 128;

/// The reply of `HSCAN`: the next cursor, and the fields with their values.
type Page = (u64, Vec<(Vec<u8>, Vec<u8>)>);

/// The sessions in the hash of a user.
#[derive(Default)]
pub(super) struct Scanned {
    /// Sessions with the headers of their records.
    live: BTreeMap<TokenId, (Header, SessionRecord)>,
    /// The names of fields that have expired.
    dead: Vec<Vec<u8>>,
}

impl RedisStore {
    /// Reads all sessions of a user in pages. Fails if it is not done by `until`.
    pub(super) async fn scan(&self, user_id: &str, until: Instant) -> Result<Scanned, Error> {
        let key = self.keys.sessions(user_id);
        // `HSCAN` may return a field more than once.
        let mut all = Scanned::default();
        let mut cursor = 0;
        let mut scanned: Option<Arc<Live>> = None;
        loop {
            let mut commands = Pipeline::with_capacity(2);
            commands.cmd("TIME");
            let page = commands.cmd("HSCAN");
            page.arg(&key).arg(cursor).arg("COUNT").arg(PAGE);
            let last = scanned.as_ref();
            let page = self.client.query_page(&key, &commands, last, until).await;
            let Done { reply, live, .. } = page.map_err(|error| self.overdue(error, until))?;
            let (now, (next, page)): (Time, Page) = reply;
            // A cursor is invalid at another server, and at the same server after a restart.
            if !Arc::ptr_eq(scanned.get_or_insert(Arc::clone(&live)), &live) {
                (cursor, scanned) = (0, None);
                continue;
            }
            all.add(page, time(now));
            cursor = next;
            if cursor == 0 {
                return Ok(all);
            }
        }
    }

    /// Ends the expired sessions and, unless the limit rejects logins, most of the sessions in excess of the limit.
    /// Returns the excess sessions that it has ended, in the order of eviction.
    pub(super) async fn prune(
        &self,
        user_id: &str,
        limit: SessionLimit,
        until: Instant,
    ) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let Scanned { mut live, dead } = self.scan(user_id, until).await?;
        for ids in dead.chunks(MAX_ENDED) {
            let fields = ids.iter().map(|id| (id, Vec::new()));
            self.end(user_id, 0, fields, until).await?;
        }
        let order = |session: &SessionRecord| match limit.on_full {
            OnFull::EvictOldest => Some(session.created_at),
            OnFull::EvictLeastRecentlyRefreshed => Some(session.refreshed_at),
            OnFull::Reject => None,
        };
        let keep = limit.max.get() as usize + SPARE;
        let mut excess: Vec<_> = live
            .iter()
            .filter_map(|(id, (_, session))| Some((order(session)?, *id)))
            .collect();
        excess.sort_unstable();
        excess.truncate(excess.len().saturating_sub(keep));
        let mut evicted = Vec::with_capacity(excess.len());
        for page in excess.chunks(MAX_ENDED) {
            let fields = page.iter().filter_map(|(_, id)| {
                let (header, _) = live.get(id)?;
                Some((id.text(), header.to_vec()))
            });
            for id in self.end(user_id, keep, fields, until).await? {
                let ended = token_id_of(&id).and_then(|id| live.remove_entry(&id));
                evicted.extend(ended.map(|(id, (_, session))| (id, session)));
            }
        }
        Ok(evicted)
    }

    /// Ends each of these sessions that has expired, or that still has the given header while the user has more than
    /// `stay` sessions. Returns the ids of the live sessions that it has ended.
    async fn end<F: AsRef<[u8]>>(
        &self,
        user_id: &str,
        stay: usize,
        sessions: impl Iterator<Item = (F, Vec<u8>)>,
        until: Instant,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut call = PRUNE.call(self.keys.sessions(user_id)).arg(stay);
        for (id, header) in sessions {
            call = call.arg(id.as_ref()).arg(header);
        }
        let ended = self.client.write_until(&call, OnDrop::Retry, until).await;
        Ok(ended.map_err(|error| self.overdue(error, until))?.reply)
    }

    /// Replaces a timeout at or after `until` by an error that names the time limit of all pages together.
    fn overdue(&self, error: Error, until: Instant) -> Error {
        if error.kind() != ErrorKind::Timeout || Instant::now() < until {
            return error;
        }
        let limit = self.client.pages_timeout();
        let message =
            format!("the list of all sessions of the user was not complete within {limit:?}");
        Error::new(ErrorKind::Timeout, message)
    }
}

impl Scanned {
    fn add(&mut self, page: Vec<(Vec<u8>, Vec<u8>)>, now: SystemTime) {
        for (id, session) in page {
            if record::is_dead(&session, now) {
                self.dead.push(id);
            } else {
                let header = record::header(&session);
                let session = header.zip(record::decode(&session));
                self.live.extend(token_id_of(&id).zip(session));
            }
        }
    }

    pub(super) fn into_sessions(self) -> Vec<(TokenId, SessionRecord)> {
        let live = self.live.into_iter();
        live.map(|(id, (_, session))| (id, session)).collect()
    }
}
