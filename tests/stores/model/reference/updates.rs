//! Changes of sessions, and their tokens.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tower_bearer_session::{
    SessionStore, TokenId,
    store::{
        Checked, NewToken, ReplacedToken, Rotation, SessionChange, SessionRecord, SessionVersion,
        TokenStatus,
    },
};

use super::{
    super::operations::{Change, Condition, Session},
    Model,
};
use crate::stores::{replacement, token_id};

/// The number of replaced tokens that a session remembers.
const REMEMBERED: usize = 16;

impl Model {
    pub(super) async fn update(&mut self, store: &impl SessionStore, of: Session, change: &Change) {
        let new_token = change
            .new_token
            .map(|grace| NewToken::new(self.new_token(), grace));
        let asked = self.order(change, self.sessions.get(&of), &token_id(of.1), new_token);
        self.ask(store, of, asked).await;
    }

    /// Gives a session, if it is live, another token in place of its current one.
    pub(super) async fn replace(
        &mut self,
        store: &impl SessionStore,
        of: Session,
        grace: Duration,
    ) {
        let id = token_id(of.1);
        let session = self.sessions.get(&of);
        let current = *session.map_or(&id, |session| session.current_token(&id));
        let asked = replacement(current, self.new_token(), grace);
        self.ask(store, of, asked).await;
    }

    async fn ask(&mut self, store: &impl SessionStore, of: Session, asked: SessionChange) {
        self.change(store, of, asked.clone()).await;
        if asked.new_token.is_some() {
            self.replacements.push((of, asked));
        }
    }

    /// Asks once more for a change that named a new token, as after a lost reply.
    pub(super) async fn repeat(&mut self, store: &impl SessionStore, which: usize) {
        if let Some((of, asked)) = self.replacements.iter().rev().nth(which) {
            let (of, asked) = (*of, asked.clone());
            self.change(store, of, asked).await;
        }
    }

    async fn change(&mut self, store: &impl SessionStore, of: Session, asked: SessionChange) {
        let (user_id, id) = (self.users[of.0].clone(), token_id(of.1));
        let updated = store.update(&user_id, &id, &asked).await.unwrap();
        let Some(known) = self.sessions.get(&of).cloned() else {
            assert_eq!(updated, None);
            return;
        };
        let current = *known.current_token(&id);
        let is_repeated = asked.new_token.is_some_and(|new| new.token_id == current);
        let is_met = asked.if_token.is_none_or(|token| token == current)
            && asked
                .if_version
                .is_none_or(|version| version == known.version())
            && asked
                .if_metadata
                .as_ref()
                .is_none_or(|metadata| *metadata == known.metadata.clone().unwrap_or_default());
        if !is_met && !is_repeated {
            assert_eq!(updated, None);
            return;
        }
        let updated = updated.expect("the session is live and the conditions hold");
        let checked = store.check(&user_id, &id).await.unwrap().unwrap();
        let expected = match is_repeated {
            true => known,
            false => self.changed(of, known, &asked, &checked.session),
        };
        assert_eq!(*checked.session, expected);
        assert_eq!(updated.expires_at, expected.expires_at);
        self.observe(checked.now);
        self.sessions.insert(of, expected);
        self.check_tokens(of, &checked);
        if asked.end_others {
            let others = self.of_user(of.0).count() as u64 - 1;
            self.sessions
                .retain(|other, _| other.0 != of.0 || other == &of);
            assert!(updated.ended == others || (self.exact && updated.ended > others));
        } else {
            assert_eq!(updated.ended, 0);
        }
    }

    /// One that no session has had.
    fn new_token(&mut self) -> TokenId {
        self.tokens += 1;
        token_id(self.tokens)
    }

    /// What the change makes of a session. The moment of the change is in the record only, in up to three places.
    fn changed(
        &mut self,
        of: Session,
        mut session: SessionRecord,
        asked: &SessionChange,
        found: &SessionRecord,
    ) -> SessionRecord {
        let mut moments = Vec::new();
        if let Some(ttl) = asked.ttl {
            moments.push(found.refreshed_at);
            session.refreshed_at = found.refreshed_at;
            let expires_at = found.refreshed_at + ttl;
            let ends_at = session.ends_at.into_iter();
            session.expires_at = ends_at.fold(expires_at, SystemTime::min);
        }
        if let Some(metadata) = &asked.metadata {
            session.metadata = (!metadata.is_empty()).then(|| metadata.clone());
        }
        if asked.authenticated {
            moments.push(found.authenticated_at);
            session.authenticated_at = found.authenticated_at;
        }
        if let Some(new) = &asked.new_token {
            let latest = found
                .rotation
                .as_ref()
                .expect("it has a new token")
                .replaced[0];
            moments.push(latest.usable_until - new.grace);
            let old = *session.current_token(&token_id(of.1));
            let replaced = self.replaced.entry(of).or_default();
            replaced.insert(0, ReplacedToken::new(old, latest.usable_until));
            let mut tokens = Rotation::of(new.token_id);
            tokens.replaced = replaced.iter().copied().take(REMEMBERED).collect();
            session.rotation = Some(Box::new(tokens));
        }
        for moment in &moments {
            assert_eq!(moment, &moments[0]);
            self.observe(*moment);
        }
        session
    }

    /// What each token that the session has ever had is to it, and one that it has not had.
    pub(super) fn check_tokens(&self, of: Session, checked: &Checked) {
        let (id, session) = (token_id(of.1), &checked.session);
        let current = *session.current_token(&id);
        let status = |token| session.token_status(&id, &token, checked.now);
        assert_eq!(status(current), TokenStatus::Current);
        assert_eq!(status(token_id(u128::MAX)), TokenStatus::Unknown);
        let replaced = self.replaced.get(&of).map_or(&[][..], Vec::as_slice);
        for token in replaced.iter().map(|token| token.token_id) {
            // Its last replacement counts.
            let latest = replaced.iter().position(|other| other.token_id == token);
            let latest = latest.expect("it was replaced");
            let expected = if token == current {
                TokenStatus::Current
            } else if latest < REMEMBERED && checked.now < replaced[latest].usable_until {
                TokenStatus::InGrace
            } else if latest < REMEMBERED || token == id {
                TokenStatus::Reused
            } else {
                TokenStatus::Unknown
            };
            assert_eq!(status(token), expected);
        }
    }

    /// The change as a store takes it.
    fn order(
        &self,
        change: &Change,
        known: Option<&SessionRecord>,
        id: &TokenId,
        new_token: Option<NewToken>,
    ) -> SessionChange {
        let version = known.map(SessionRecord::version);
        // Either time may be the one that differs.
        let unknown = match (version, change.authenticated) {
            (Some(version), true) => {
                SessionVersion::new(SystemTime::UNIX_EPOCH, version.expires_at)
            }
            (Some(version), false) => {
                SessionVersion::new(version.refreshed_at, SystemTime::UNIX_EPOCH)
            }
            (None, _) => SessionVersion::new(self.now, SystemTime::UNIX_EPOCH),
        };
        let current = known.map_or(id, |session| session.current_token(id));
        let mut order = SessionChange::default();
        order.ttl = change.ttl;
        order.metadata.clone_from(&change.metadata);
        order.authenticated = change.authenticated;
        order.end_others = change.end_others;
        order.new_token = new_token;
        order.if_token = match change.if_token {
            Condition::None => None,
            Condition::Holds => Some(*current),
            // One that was replaced, if there is one.
            Condition::Fails => match known.and_then(|session| session.rotation.as_deref()) {
                Some(tokens) => Some(tokens.replaced[0].token_id),
                None => Some(token_id(u128::MAX)),
            },
        };
        order.if_version = match change.if_version {
            Condition::None => None,
            Condition::Holds => Some(version.unwrap_or(unknown)),
            Condition::Fails => Some(unknown),
        };
        let metadata = known.and_then(|session| session.metadata.clone());
        let metadata = metadata.unwrap_or_default();
        order.if_metadata = match change.if_metadata {
            Condition::None => None,
            Condition::Holds => Some(metadata),
            // Of none, or of more.
            Condition::Fails if change.authenticated && !metadata.is_empty() => Some(Bytes::new()),
            Condition::Fails => Some([&metadata[..], b"x"].concat().into()),
        };
        order
    }
}
