//! Reading all sessions of a user, and ending those that have expired or that a limit has no room for.
//!
//! A login with a limit is one script, which reads all sessions of the user. If they are too many for that, most of
//! those that the limit has no room for end here first, page by page, so that no command keeps the server from others.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use redis::Pipeline;
use tokio::time::Instant;

use super::{
    RedisStore,
    conn::{
        link::{Done, OnDrop},
        live::Live,
    },
    record::{self, Header},
    time, token_id_of,
    wire::{Time, script::PRUNE},
};
use crate::{
    Error, ErrorKind, TokenId,
    store::{OnFull, SessionLimit, SessionRecord},
};

/// How many sessions a page has, about.
const PAGE: usize = 512;
/// How many sessions one command ends: ending a session takes longer than reading it.
const MAX_ENDED: usize = 256;
/// How many more than the limit are left to the script of the login. Sessions may end while the others are read, and
/// none may be ended for the sake of one that is gone.
const SPARE: usize = 128;

/// The answer of `HSCAN`: the next cursor, fields and values.
type Page = (u64, Vec<(Vec<u8>, Vec<u8>)>);

/// What is in the hash of a user.
#[derive(Default)]
pub(super) struct Scanned {
    /// Sessions with the headers of their records.
    live: BTreeMap<TokenId, (Header, SessionRecord)>,
    /// The names of fields that have expired.
    dead: Vec<Vec<u8>>,
}

impl RedisStore {
    /// Reads all sessions of a user, in pages, until then.
    pub(super) async fn scan(&self, user_id: &str, until: Instant) -> Result<Scanned, Error> {
        let key = self.keys.sessions(user_id);
        // A scan may return a field more than once.
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
            // A cursor means nothing to another server, or to the same one restarted.
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

    /// Ends the sessions that have expired, and, unless the limit says to reject logins, most of those that it has no
    /// room for. Returns these, the first to go first.
    pub(super) async fn prune(
        &self,
        user_id: &str,
        limit: SessionLimit,
        until: Instant,
    ) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let Scanned { mut live, dead } = self.scan(user_id, until).await?;
        for ids in dead.chunks(MAX_ENDED) {
            let fields = ids.iter().map(|id| (&id[..], Vec::new()));
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
                Some((id.as_str().as_bytes(), header.to_vec()))
            });
            for id in self.end(user_id, keep, fields, until).await? {
                let ended = token_id_of(&id).and_then(|id| live.remove_entry(&id));
                evicted.extend(ended.map(|(id, (_, session))| (id, session)));
            }
        }
        Ok(evicted)
    }

    /// Ends those of a few sessions that have expired or still have this header, as long as more than `stay` are there.
    /// Returns the ids of those that were live.
    async fn end<'a>(
        &self,
        user_id: &str,
        stay: usize,
        sessions: impl Iterator<Item = (&'a [u8], Vec<u8>)>,
        until: Instant,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut call = PRUNE.call(self.keys.sessions(user_id)).arg(stay);
        for (id, header) in sessions {
            call = call.arg(id).arg(header);
        }
        let ended = self.client.write_until(&call, OnDrop::Retry, until).await;
        Ok(ended.map_err(|error| self.overdue(error, until))?.reply)
    }

    /// Says of an error at the end of all pages that it is about all of them.
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
                let session = header.zip(record::decode(session));
                self.live.extend(token_id_of(&id).zip(session));
            }
        }
    }

    pub(super) fn into_sessions(self) -> Vec<(TokenId, SessionRecord)> {
        let live = self.live.into_iter();
        live.map(|(id, (_, session))| (id, session)).collect()
    }
}
