use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio::time::advance;
use tower_bearer_session::{
    ErrorKind, OnFull, SessionStore, TokenId,
    store::{NewSession, PutMode, ReplacedToken, SessionChange, SessionLimit, SessionRecord},
};

use super::operations::{Mode, Operation, Session, TOKENS, USERS};
use crate::stores::{is_live, token_id};

mod updates;

/// What a store must hold. All times are ones that the store told, or follow from them.
pub(super) struct Model {
    users: [String; USERS],
    /// Not after the store's time; its very time if `exact`.
    now: SystemTime,
    exact: bool,
    sessions: BTreeMap<Session, SessionRecord>,
    cached: BTreeMap<usize, (Vec<u8>, SystemTime)>,
    /// All tokens of a session that were replaced, the latest first.
    replaced: BTreeMap<Session, Vec<ReplacedToken>>,
    /// The changes that named a new token, but for repeated ones.
    replacements: Vec<(Session, SessionChange)>,
    /// The number of the last new token of any session.
    tokens: u128,
}

impl Model {
    pub(super) fn new(case: usize, now: SystemTime, exact: bool) -> Self {
        Self {
            users: [0, 1, 2].map(|user| format!("user {user} of case {case}")),
            now,
            exact,
            sessions: BTreeMap::new(),
            cached: BTreeMap::new(),
            replaced: BTreeMap::new(),
            replacements: Vec::new(),
            tokens: 1000,
        }
    }

    /// Does it in the store and in the model, and compares.
    pub(super) async fn apply(&mut self, store: &impl SessionStore, operation: &Operation) {
        match operation {
            Operation::Create { of, new, limit } => self.create(store, *of, new, *limit).await,
            Operation::Check(of) => self.check(store, *of).await,
            Operation::Refresh(of, ttl) => self.refresh(store, *of, *ttl).await,
            Operation::Update(of, change) => self.update(store, *of, change).await,
            Operation::Replace(of, times, grace) => {
                for _ in 0..*times {
                    self.replace(store, *of, *grace).await;
                }
            }
            Operation::Repeat(which) => self.repeat(store, *which).await,
            Operation::Delete((user, token)) => {
                let ended = store.delete(&self.users[*user], &token_id(*token)).await;
                let live = self.sessions.remove(&(*user, *token)).is_some();
                assert_eq!(ended.unwrap(), live);
            }
            Operation::DeleteAll(user, except) => self.delete_all(store, *user, *except).await,
            Operation::List(user) => self.list(store, *user).await,
            Operation::GetUser(user) => {
                let cached = store.get_user(&self.users[*user]).await.unwrap();
                assert_eq!(cached.as_deref(), self.cached(*user));
            }
            Operation::PutUser {
                user,
                value,
                ttl,
                mode,
            } => self.put_user(store, *user, value, *ttl, mode).await,
            Operation::Advance(time) => {
                advance(*time).await;
                self.now += *time;
                self.expire();
            }
        }
    }

    /// Compares everything.
    pub(super) async fn compare(&mut self, store: &impl SessionStore) {
        for user in 0..USERS {
            self.list(store, user).await;
            for token in 0..TOKENS {
                self.check(store, (user, token)).await;
            }
            let cached = store.get_user(&self.users[user]).await.unwrap();
            assert_eq!(cached.as_deref(), self.cached(user));
        }
    }

    async fn create(
        &mut self,
        store: &impl SessionStore,
        of: Session,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) {
        let (user, token) = of;
        let outcome = store
            .create(&self.users[user], &token_id(token), new, limit)
            .await;
        if let Some(session) = self.sessions.get(&of) {
            let created = outcome.unwrap();
            assert_eq!(&created.session, session);
            assert_eq!(created.evicted, []);
            return;
        }
        let live = self.of_user(user).count();
        let excess = match limit {
            Some(limit) => (live + 1).saturating_sub(limit.max.get() as usize),
            None => 0,
        };
        let on_full = limit.map(|limit| limit.on_full);
        if excess > 0 && on_full == Some(OnFull::Reject) {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::SessionLimit);
            return;
        }
        let created = outcome.unwrap();

        // Who goes is not determined if several began in the same moment: so any such choice is right.
        let order = |session: &SessionRecord| match on_full {
            Some(OnFull::EvictLeastRecentlyRefreshed) => session.refreshed_at,
            _ => session.created_at,
        };
        assert_eq!(created.evicted.len(), excess);
        assert!(
            created
                .evicted
                .is_sorted_by_key(|(_, session)| order(session))
        );
        for (id, session) in &created.evicted {
            assert_eq!(self.remove(user, *id).as_ref(), Some(session));
        }
        let last_to_go = created.evicted.last().map(|(_, session)| order(session));
        assert!(
            self.of_user(user)
                .all(|(_, session)| last_to_go <= Some(order(&session)))
        );

        let now = created.session.created_at;
        self.observe(now);
        let ends_at = new.max_lifetime.map(|lifetime| now + lifetime);
        let expires_at = ends_at.into_iter().fold(now + new.ttl, SystemTime::min);
        let mut expected = SessionRecord::begin(&new.clone(), now);
        expected.created_at = now;
        expected.refreshed_at = now;
        expected.expires_at = expires_at;
        expected.ends_at = ends_at;
        expected.metadata = new.metadata.clone();
        assert_eq!(created.session, expected);
        self.sessions.insert(of, expected);
        self.replaced.remove(&of);
    }

    async fn check(&mut self, store: &impl SessionStore, of: Session) {
        let checked = store.check(&self.users[of.0], &token_id(of.1)).await;
        let checked = checked.unwrap();
        if let Some(checked) = &checked {
            self.observe(checked.now);
            assert_eq!(checked.user.as_deref(), self.cached(of.0));
            self.check_tokens(of, checked);
        }
        let session = checked.map(|checked| checked.session);
        assert_eq!(session.as_deref(), self.sessions.get(&of));
    }

    async fn refresh(&mut self, store: &impl SessionStore, of: Session, ttl: Duration) {
        let (user_id, id) = (&self.users[of.0], token_id(of.1));
        let refreshed = store.refresh(user_id, &id, ttl).await.unwrap();
        assert_eq!(refreshed, self.sessions.contains_key(&of));
        if !refreshed {
            assert!(!is_live(store, user_id, &id).await);
            return;
        }
        // The moment of the refresh is in the record only.
        let checked = store.check(user_id, &id).await.unwrap().unwrap();
        let now = checked.session.refreshed_at;
        assert!(now <= checked.now);
        self.observe(now);
        let session = self.sessions.get_mut(&of).unwrap();
        session.refreshed_at = now;
        session.expires_at = session.ends_at.into_iter().fold(now + ttl, SystemTime::min);
        assert_eq!(&*checked.session, session);
    }

    async fn delete_all(&mut self, store: &impl SessionStore, user: usize, except: Option<u128>) {
        let live = self.of_user(user).count() as u64;
        let kept = except.and_then(|token| self.sessions.remove_entry(&(user, token)));
        self.sessions.retain(|of, _| of.0 != user);
        let live = live - u64::from(kept.is_some());
        self.sessions.extend(kept);

        let except = except.map(token_id);
        let removed = store
            .delete_all(&self.users[user], except.as_ref())
            .await
            .unwrap();
        // The number may include ones that had expired but were not freed yet.
        assert!(removed == live || (self.exact && removed > live));
    }

    async fn list(&mut self, store: &impl SessionStore, user: usize) {
        let list = store.list(&self.users[user]).await.unwrap();
        assert!(list.is_sorted_by_key(|(_, session)| session.created_at));
        let listed: BTreeMap<TokenId, _> = list.iter().cloned().collect();
        assert_eq!(listed.len(), list.len());
        assert_eq!(listed, self.of_user(user).collect());
    }

    async fn put_user(
        &mut self,
        store: &impl SessionStore,
        user: usize,
        value: &[u8],
        ttl: Duration,
        mode: &Mode,
    ) {
        let current = self.cached(user);
        let mode = match mode {
            Mode::Replace => PutMode::Replace,
            Mode::IfNone => PutMode::IfUnchanged(None),
            Mode::IfThis(seen) => PutMode::IfUnchanged(Some(seen)),
            Mode::IfCurrent => PutMode::IfUnchanged(current),
        };
        let expected = match mode {
            PutMode::Replace => true,
            PutMode::IfUnchanged(seen) => seen == current,
        };
        let written = store.put_user(&self.users[user], value, ttl, mode).await;
        assert_eq!(written.unwrap(), expected);
        if expected {
            self.cached.insert(user, (value.to_vec(), self.now + ttl));
        }
    }

    /// The store told this time.
    fn observe(&mut self, time: SystemTime) {
        if self.exact {
            assert_eq!(time, self.now);
        } else {
            assert!(time >= self.now, "time went back");
            // A store may tell the time finer than it keeps it.
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let millis = u64::try_from(since.as_millis()).unwrap();
            self.now = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        }
    }

    fn expire(&mut self) {
        let now = self.now;
        self.sessions.retain(|_, session| now < session.expires_at);
        self.cached.retain(|_, (_, expires_at)| now < *expires_at);
    }

    fn of_user(&self, user: usize) -> impl Iterator<Item = (TokenId, SessionRecord)> + '_ {
        let sessions = self.sessions.range((user, 0)..(user + 1, 0));
        sessions.map(|((_, token), session)| (token_id(*token), session.clone()))
    }

    fn remove(&mut self, user: usize, id: TokenId) -> Option<SessionRecord> {
        let token = (0..TOKENS).find(|token| token_id(*token) == id)?;
        self.sessions.remove(&(user, token))
    }

    fn cached(&self, user: usize) -> Option<&[u8]> {
        self.cached.get(&user).map(|(value, _)| &value[..])
    }
}
