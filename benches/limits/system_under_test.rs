//! What is measured: a manager, with a user who is logged in and cached.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tower_bearer_session::{NearCache, RedisStore, SessionStore, TokenManager};

use super::load::Laps;

/// Far more than a busy machine may take: faults are not measured here.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
pub(crate) const USER: &str = "alice";

#[derive(Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) roles: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct SystemUnderTest {
    pub(crate) manager: TokenManager<Profile>,
    pub(crate) user_id: String,
    pub(crate) token: String,
    pub(crate) token_id: String,
}

impl SystemUnderTest {
    pub(crate) async fn on(store: impl SessionStore) -> Self {
        let manager = manager(store);
        let token = manager.set_token(USER, None).await.unwrap();
        let subject = Self {
            manager,
            user_id: USER.to_owned(),
            token: token.expose_secret().to_owned(),
            token_id: token.id().to_string(),
        };
        // The first check loads the user.
        subject.check().await;
        subject
    }

    pub(crate) async fn on_redis(url: &str) -> Self {
        Self::on(redis_store(url).await).await
    }

    /// So many other users of the same manager, logged in and cached.
    pub(crate) async fn others(&self, count: usize) -> Vec<Self> {
        let mut others = Vec::new();
        for n in 0..count {
            let user_id = format!("user-{n}");
            let token = self.manager.set_token(&user_id, None).await.unwrap();
            let other = Self {
                manager: self.manager.clone(),
                user_id,
                token: token.expose_secret().to_owned(),
                token_id: token.id().to_string(),
            };
            other.check().await;
            others.push(other);
        }
        others
    }

    pub(crate) async fn check(&self) {
        let checked = self.manager.check_token_or_update_user(&self.token, None);
        assert!(checked.await.unwrap().is_some());
    }

    /// Checks its token again and again.
    pub(crate) fn checks(&self, mut laps: Laps) -> impl Future<Output = Laps> + use<> {
        let subject = self.clone();
        async move {
            while laps.next() {
                subject.check().await;
            }
            laps
        }
    }
}

pub(crate) async fn redis_store(url: &str) -> RedisStore {
    let builder = RedisStore::builder(url).deadline(DEADLINE);
    builder.connect().await.unwrap()
}

/// The same, with a near-cache.
pub(crate) async fn near_store(url: &str) -> RedisStore {
    let builder = RedisStore::builder(url).deadline(DEADLINE);
    let builder = builder.near_cache(NearCache::new());
    builder.connect().await.unwrap()
}

pub(crate) fn manager(store: impl SessionStore) -> TokenManager<Profile> {
    let load = async |id: String| {
        let profile = Profile {
            email: format!("{id}@example.org"),
            name: id,
            roles: vec!["reader".to_owned(), "writer".to_owned()],
        };
        Ok::<_, Infallible>(Some(profile))
    };
    let builder = TokenManager::builder(store).load_user(load);
    builder.build().unwrap()
}

/// All of them in turn, for ever, from any one on; neighbors are not next to each other.
pub(crate) fn in_turn<T>(users: &[T]) -> impl Iterator<Item = &T> {
    let first = RandomState::new().hash_one(0) as usize % users.len();
    (0..).map(move |turn| &users[(first + turn * 7919) % users.len()])
}

/// Checks one user after the other, again and again.
pub(crate) fn checks_in_turn(
    users: &Arc<[SystemUnderTest]>,
    mut laps: Laps,
) -> impl Future<Output = Laps> + use<> {
    let users = Arc::clone(users);
    async move {
        let mut turns = in_turn(&users);
        while laps.next() {
            turns.next().unwrap().check().await;
        }
        laps
    }
}
