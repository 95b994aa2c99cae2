//! The operations of a worker on sessions.

use std::time::Duration;

use tower_bearer_session::{
    ErrorKind, SessionStore, TokenId,
    store::{SessionChange, SessionRecord},
};

use crate::{
    model::{Asked, Evidence, Known, State},
    stores::{HOUR, session, token_id},
    worker::Worker,
};

/// No user has more live sessions.
const SESSIONS: usize = 6;

impl<S: SessionStore + Clone> Worker<S> {
    /// Does something to one of the users.
    pub(crate) async fn step(&mut self, user: usize) {
        let live = self.users[user].live.len();
        match self.random.below(100) {
            _ if live == 0 => self.log_in(user).await,
            0..15 if live < SESSIONS => self.log_in(user).await,
            15..27 => self.refresh(user).await,
            27..38 => self.log_out(user).await,
            38..40 => self.log_out_everywhere(user).await,
            40..48 => self.list(user).await,
            48..56 => self.put_user(user).await,
            56..62 => self.get_user(user).await,
            62..64 => self.check_a_stranger(user).await,
            64..78 => self.check_an_ended_one(user).await,
            _ => self.check_a_live_one(user).await,
        }
        self.users[user].sort();
    }

    async fn log_in(&mut self, user: usize) {
        let (number, ttl, at) = (self.fresh(), self.random_ttl(), self.random_store());
        let (store, name) = self.store_and_name(user, at);
        let (id, new) = (token_id(number.into()), session(ttl));
        let what = format!("store {at} login {number:x} for {ttl:?}");
        let login = async {
            Ok(store
                .create(&name, &id, &new, None)
                .await?
                .session
                .expires_at)
        };
        let (asked, outcome) = self.call(user, what, login).await;
        let (state, expiry) = match outcome {
            Ok(at) => (State::Live, (at, at)),
            Err(_) => (State::Unknown, (asked.began + ttl, asked.ended + ttl)),
        };
        let evidence = self.acknowledged(asked, false);
        self.users[user].live.push(Known {
            id,
            number,
            state,
            evidence,
            expiry,
        });
    }

    async fn refresh(&mut self, user: usize) {
        let (index, ttl, at) = (
            self.random_live(user),
            self.random_ttl(),
            self.random_store(),
        );
        let (store, name) = self.store_and_name(user, at);
        let Known { id, number, .. } = self.users[user].live[index];
        let what = format!("store {at} refresh {number:x} for {ttl:?}");
        let change = SessionChange::refresh(ttl);
        let refresh = async {
            Ok(store
                .update(&name, &id, &change)
                .await?
                .map(|it| it.expires_at))
        };
        let (asked, outcome) = self.call(user, what, refresh).await;
        let evidence = self.acknowledged(asked, true);
        let known = &mut self.users[user].live[index];
        match outcome {
            Ok(Some(at)) => {
                let may_not = known.must_be_live(asked) == Some(false);
                let before = known.evidence;
                (known.state, known.expiry) = (State::Live, (at, at));
                known.evidence = evidence;
                if may_not {
                    self.object(
                        user,
                        format!("{number:x} was refreshed, though it has ended"),
                        before,
                    );
                }
            }
            Ok(None) => self.found(user, index, None, asked),
            Err(_) => known.doubt_expiry(ttl, asked),
        }
    }

    async fn log_out(&mut self, user: usize) {
        let (index, at) = (self.random_live(user), self.random_store());
        let (store, name) = self.store_and_name(user, at);
        let Known { id, number, .. } = self.users[user].live[index];
        let what = format!("store {at} logout {number:x}");
        let (asked, outcome) = self.call(user, what, store.delete(&name, &id)).await;
        let evidence = self.acknowledged(asked, true);
        let known = &mut self.users[user].live[index];
        match outcome {
            Ok(ended) => {
                let (must_be_live, before) = (known.must_be_live(asked), known.evidence);
                (known.state, known.evidence) = (State::Dead, evidence);
                if !ended && must_be_live == Some(true) {
                    self.object(
                        user,
                        format!("{number:x} was lost before its logout"),
                        before,
                    );
                }
            }
            // It is done, but a failover may undo it.
            Err(ErrorKind::Unconfirmed) => {
                known.state = State::Dead;
                known.evidence = Evidence::seen(asked);
            }
            Err(_) => known.doubt(),
        }
    }

    async fn log_out_everywhere(&mut self, user: usize) {
        let at = self.random_store();
        let (store, name) = self.store_and_name(user, at);
        let what = format!("store {at} logout of all");
        let (asked, outcome) = self.call(user, what, store.delete_all(&name, None)).await;
        let (sure, unsure) = (self.acknowledged(asked, true), Evidence::seen(asked));
        for known in &mut self.users[user].live {
            match outcome {
                Ok(_) => (known.state, known.evidence) = (State::Dead, sure),
                Err(ErrorKind::Unconfirmed) => {
                    (known.state, known.evidence) = (State::Dead, unsure);
                }
                Err(_) => known.doubt(),
            }
        }
    }

    async fn list(&mut self, user: usize) {
        let at = self.random_store();
        let (store, name) = self.store_and_name(user, at);
        let mut listed = Vec::new();
        let list = async {
            listed = store.list(&name).await?;
            Ok(listed.len())
        };
        let (asked, outcome) = self.call(user, format!("store {at} list"), list).await;
        if outcome.is_err() {
            return;
        }
        let record_of = |id: TokenId| listed.iter().find(|(it, _)| *it == id).map(|(_, it)| it);
        let of_the_user = self.users[user].live.len() + self.users[user].ended.len();
        for index in 0..of_the_user {
            let id = self.known(user, index).id;
            self.found(user, index, record_of(id), asked);
        }
        for (id, _) in &listed {
            if !(0..of_the_user).any(|index| self.known(user, index).id == *id) {
                self.wrong(user, &format!("{id} is listed, though it ended long ago"));
            }
        }
    }

    async fn check_a_live_one(&mut self, user: usize) {
        let index = self.random_live(user);
        self.check(user, index).await;
    }

    async fn check_an_ended_one(&mut self, user: usize) {
        let (live, ended) = (self.users[user].live.len(), self.users[user].ended.len());
        if ended > 0 {
            let index = live + self.random.below(ended);
            self.check(user, index).await;
        }
    }

    async fn check(&mut self, user: usize, index: usize) {
        let at = self.random_store();
        let (store, name) = self.store_and_name(user, at);
        let Known { id, number, .. } = *self.known(user, index);
        let mut found = None;
        let check = async {
            found = store.check(&name, &id).await?;
            Ok(found.is_some())
        };
        let (asked, outcome) = self
            .call(user, format!("store {at} check {number:x}"), check)
            .await;
        if outcome.is_ok() {
            self.found(user, index, found.as_ref().map(|it| &*it.session), asked);
            if let Some(found) = found {
                self.value_is(user, found.user.as_ref().map(|it| &it.value()[..]), asked);
            }
        }
    }

    async fn check_a_stranger(&mut self, user: usize) {
        let (number, at) = (self.fresh(), self.random_store());
        let (store, name) = self.store_and_name(user, at);
        let id = token_id(number.into());
        let check = async { Ok(store.check(&name, &id).await?.is_some()) };
        let (_, outcome) = self
            .call(user, format!("store {at} check a stranger"), check)
            .await;
        if outcome == Ok(true) {
            self.wrong(user, "a token is accepted that nobody was given");
        }
    }

    /// Judges an answer about a session.
    fn found(&mut self, user: usize, index: usize, found: Option<&SessionRecord>, asked: Asked) {
        let known = self.known(user, index);
        let (wrong, before, number) = (known.wrong(found, asked), known.evidence, known.number);
        self.known(user, index).learn(found, asked);
        if let Some(wrong) = wrong {
            self.object(user, format!("{number:x} is {wrong}"), before);
        }
    }

    /// The sessions of a user, first those that are live.
    fn known(&mut self, user: usize, index: usize) -> &mut Known {
        let user = &mut self.users[user];
        match index.checked_sub(user.live.len()) {
            None => &mut user.live[index],
            Some(index) => &mut user.ended[index],
        }
    }

    /// What was acknowledged is sure, unless a failover may undo it.
    pub(super) fn acknowledged(&self, asked: Asked, is_confirmed: bool) -> Evidence {
        Evidence {
            sure: is_confirmed || !self.scene.may_lose,
            since: asked.at,
        }
    }

    /// Most sessions outlive the test, and some do not.
    fn random_ttl(&mut self) -> Duration {
        match self.random.below(5) {
            0 => self.random.millis(1_000, 4_000),
            _ => HOUR,
        }
    }

    fn random_live(&mut self, user: usize) -> usize {
        self.random.below(self.users[user].live.len())
    }

    pub(super) fn store_and_name(&self, user: usize, at: usize) -> (S, String) {
        (self.stores[at].clone(), self.users[user].name.clone())
    }
}
