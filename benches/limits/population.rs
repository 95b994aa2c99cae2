//! Users and sessions in any number, and how long what they do takes.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tower_bearer_session::{Token, TokenManager, TokenOptions};

use super::{
    baseline, fill,
    rounds::median,
    system_under_test::{self, Profile},
};

/// How often in a round.
const TIMES: usize = 100;
/// Those of the users whose tokens are known.
const KNOWN: usize = 1_000;

/// Users in a database, who act one after the other.
pub(crate) struct Population {
    pub(crate) manager: TokenManager<Profile>,
    connection: MultiplexedConnection,
    record: Vec<u8>,
    members: Vec<(String, Token)>,
    turn: usize,
}

/// How long operations took, in microseconds.
#[derive(Default)]
struct Times(Vec<f64>);

impl Population {
    /// One user with so many sessions.
    pub(crate) async fn of_sessions(url: &str, count: usize) -> Self {
        let user_id = format!("user-with-{count}");
        let manager = system_under_test::manager(system_under_test::redis_store(url).await);
        let mut connection = baseline::connect(url).await;
        let token = manager.set_token(&user_id, None).await.unwrap();
        let record = fill::record(&mut connection, &user_id, &token).await;
        fill::sessions(&mut connection, &user_id, &record, count - 1).await;
        let listed = manager.list_user_tokens(&user_id).await.unwrap();
        assert_eq!(listed.len(), count);
        Self {
            manager,
            connection,
            record,
            members: vec![(user_id, token)],
            turn: 0,
        }
    }

    /// So many users with a session each.
    pub(crate) async fn of_users(url: &str, count: usize) -> Self {
        let mut population = Self::of_sessions(url, 1).await;
        let users = fill::users(&mut population.connection, &population.record, count, KNOWN);
        population.members = users.await;
        population
    }

    pub(crate) async fn check(&mut self) -> f64 {
        let mut times = Times::default();
        for _ in 0..TIMES {
            let (manager, (_, token)) = self.next();
            let check = manager.check_token(token.expose_secret());
            assert!(times.of(check).await.unwrap().is_some());
        }
        times.median()
    }

    /// Each new session ends at once, so that there are never more of them.
    pub(crate) async fn create(&mut self) -> f64 {
        let mut times = Times::default();
        for _ in 0..TIMES {
            let (manager, (user_id, _)) = self.next();
            let token = times.of(manager.set_token(user_id, None)).await.unwrap();
            let deleted = manager.delete_user_token(user_id, token.id()).await;
            assert!(deleted.unwrap());
        }
        times.median()
    }

    pub(crate) async fn refresh(&mut self) -> f64 {
        let mut times = Times::default();
        for _ in 0..TIMES {
            let (manager, (_, token)) = self.next();
            let refresh = manager.refresh_token(token.expose_secret(), None);
            assert!(times.of(refresh).await.unwrap());
        }
        times.median()
    }

    pub(crate) async fn list(&mut self, sessions: usize) -> f64 {
        let mut times = Times::default();
        for _ in 0..few(sessions) {
            let (manager, (user_id, _)) = self.next();
            let listed = times.of(manager.list_user_tokens(user_id)).await.unwrap();
            assert_eq!(listed.len(), sessions);
        }
        times.median()
    }

    /// Logs another user out, who has so many sessions.
    pub(crate) async fn delete_all(&mut self, sessions: usize) -> f64 {
        let mut times = Times::default();
        for _ in 0..few(sessions) {
            self.log_in("another", sessions).await;
            let deleted = times.of(self.manager.delete_user_tokens("another")).await;
            assert_eq!(deleted.unwrap(), sessions as u64);
        }
        // The server frees the memory later.
        tokio::time::sleep(Duration::from_millis(50)).await;
        times.median()
    }

    /// Gives a user so many sessions.
    pub(crate) async fn log_in(&mut self, user_id: &str, sessions: usize) {
        fill::sessions(&mut self.connection, user_id, &self.record, sessions).await;
    }

    /// The same with sessions that are live, or have expired.
    pub(crate) async fn log_in_for(&mut self, user_id: &str, sessions: usize, live: bool) {
        let mut record = self.record.clone();
        if !live {
            let options = TokenOptions::new().ttl(Duration::from_millis(1));
            let (expired, manager) = ("expired", &self.manager);
            // The other session keeps the one that expires in the database.
            manager.set_token(expired, None).await.unwrap();
            let issued = manager.set_token_with(expired, options).await.unwrap();
            record = fill::record(&mut self.connection, expired, &issued.token).await;
        }
        fill::sessions(&mut self.connection, user_id, &record, sessions).await;
    }

    /// Whose turn it is.
    fn next(&mut self) -> (&TokenManager<Profile>, &(String, Token)) {
        self.turn += 7919;
        let member = &self.members[self.turn % self.members.len()];
        (&self.manager, member)
    }
}

impl Times {
    async fn of<T>(&mut self, operation: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = operation.await;
        self.0.push(start.elapsed().as_secs_f64() * 1e6);
        result
    }

    fn median(self) -> f64 {
        median(self.0.into_iter())
    }
}

/// How often to do what takes longer with more sessions.
fn few(sessions: usize) -> usize {
    (10_000 / sessions).clamp(1, TIMES)
}
